"""`spawn-enter` at a terminal: the command has one of its own, and the caller's is as it was before."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accessory import AccessoryDaemon, accessory_daemon
from tests.daemon import BIN, children, process_state, wait_until
from tests.integration.screen import Screen
from tests.unit.process.requirements import needs_root
from workers.accessory.enter.running import LOOK_AGAIN

pytestmark = needs_root
MAP = "0:100000:65536"
PROMPT = "at-your-service "
SHELL = ("bash", "--norc", "--noprofile", "-i")
STOP, END = "\x1a", "\x04"
FIRST_MOMENTS = 6
OUTPUT_MODES = 1  # where they are in what tcgetattr returns


@pytest.fixture
def daemon(accessory: AccessoryDaemon) -> AccessoryDaemon:
    return accessory


@pytest.fixture
def own_daemon(folder: Path) -> Iterator[AccessoryDaemon]:
    with accessory_daemon(folder) as daemon:
        yield daemon


def command(daemon: AccessoryDaemon, *arguments: str) -> list[str]:
    return [str(BIN / "spawn-enter"), "--address", daemon.address, *arguments]


def shell(daemon: AccessoryDaemon) -> Screen:
    """A shell with job control, where `enter` is spawn-enter."""
    screen = Screen(SHELL, PS1=PROMPT)
    screen.read_until(PROMPT)
    screen.type(f"alias enter={shlex.quote(shlex.join(command(daemon)))}; shopt -s expand_aliases\n")
    screen.read_until(PROMPT)
    return screen


def test_the_terminal_is_the_commands_own_and_belongs_to_its_user(daemon: AccessoryDaemon) -> None:
    script = "tty; echo owner $(stat -c %u $(tty)) of $(id -u); echo by its path > $(tty); echo </dev/tty ok; exit 3"
    with Screen(command(daemon, "--pid", "--user", MAP, "mapped", "--", "sh", "-c", script)) as screen:
        assert screen.wait() == 3
        lines = screen.seen.splitlines()
    assert lines[0].startswith("/dev/pts/")
    assert lines[1:] == ["owner 0 of 0", "by its path", "ok"]


def test_nothing_of_the_callers_terminal_is_left_to_it(daemon: AccessoryDaemon) -> None:
    """Not as a descriptor, not as the terminal of its session."""
    script = 'ls -l /proc/self/fd; echo "session $(ps -o sid= -p $$) tty $(ps -o tty= -p $$)"; tty'
    text = shlex.join(command(daemon, "--ipc", "a", "--", "sh", "-c", script))
    with Screen(["sh", "-c", f"tty; exec {text}"]) as screen:
        assert screen.wait() == 0
        lines = screen.seen.splitlines()
    ours, theirs = lines[0], lines[-1]
    assert ours != theirs
    assert not any(line.endswith(ours) for line in lines[1:])
    assert lines[-2].endswith(f"tty {theirs.removeprefix('/dev/')}")


@pytest.mark.parametrize("words", [["exit 7"], ["kill -KILL $$"], ["kill -SEGV $$"]])
def test_the_modes_are_those_of_before_however_the_command_ends(daemon: AccessoryDaemon, words: list[str]) -> None:
    script = f"echo ready; read line; {words[0]}"
    with Screen(command(daemon, "--pid", "a", "--", "sh", "-c", script)) as screen:
        before = screen.modes
        screen.read_until("ready")
        wait_until(lambda: screen.is_raw, "raw modes")
        screen.type("\r")
        status = screen.wait()
        assert status == {"exit 7": 7, "kill -KILL $$": -signal.SIGKILL}.get(words[0], -signal.SIGSEGV)
        assert screen.modes == before


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM, signal.SIGRTMIN + 3]
)
def test_the_modes_are_those_of_before_whatever_signal_comes(daemon: AccessoryDaemon, signum: int) -> None:
    with Screen(command(daemon, "--pid", "a", "--", "sh", "-c", "echo ready; exec sleep 100")) as screen:
        before = screen.modes
        screen.read_until("ready")
        wait_until(lambda: screen.is_raw, "raw modes")
        os.kill(screen.pid, signum)
        assert screen.wait() == -signum
        assert screen.modes == before


def test_the_modes_are_those_of_before_when_the_namespace_ends(own_daemon: AccessoryDaemon) -> None:
    with Screen(command(own_daemon, "--pid", "a", "--", "sh", "-c", "echo ready; exec sleep 100")) as screen:
        before = screen.modes
        screen.read_until("ready")
        wait_until(lambda: screen.is_raw, "raw modes")
        assert own_daemon.ctl("stop", "accessory").returncode == 0
        assert screen.wait() == -signal.SIGKILL
        assert screen.modes == before


def test_a_command_that_cannot_be_run(daemon: AccessoryDaemon) -> None:
    with Screen(command(daemon, "--pid", "a", "--", "/no/such/program")) as screen:
        before = screen.modes
        assert screen.wait() == 127
        assert "cannot run '/no/such/program': No such file" in screen.seen
        assert screen.modes == before


def test_it_has_the_size_of_the_terminal_and_hears_of_a_new_one(daemon: AccessoryDaemon) -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.02; done"
    with Screen(command(daemon, "--ipc", "a", "--", "sh", "-c", script), 33, 99) as screen:
        screen.read_until("33 99")
        screen.set_size(44, 111)
        screen.read_until("44 111")
        os.kill(screen.pid, signal.SIGTERM)
        screen.wait()


def test_keys_go_to_the_command(daemon: AccessoryDaemon) -> None:
    heard = "trap 'echo interrupted; heard=1' INT; stty -echo; echo ready; until [ $heard ]; do sleep 0.02; done"
    script = f"{heard}; read line; echo got $line"
    with Screen(command(daemon, "--ipc", "a", "--", "sh", "-c", script)) as screen:
        screen.read_until("ready")
        screen.type("\x03")
        screen.read_until("interrupted")
        screen.type("some words\r")
        screen.read_until("got some words")
        assert screen.wait() == 0


def test_all_that_a_command_writes_is_seen(daemon: AccessoryDaemon) -> None:
    script = "head -c 300000 /dev/zero | tr '\\0' x; echo; (sleep 100 &) ; echo END"
    with Screen(command(daemon, "--ipc", "a", "--", "sh", "-c", script)) as screen:
        assert screen.wait() == 0
        assert screen.seen == "x" * 300_000 + "\r\nEND\r\n"


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("echo some text | {} cat", "some text"),
        ("{} sh -c 'echo out; echo err >&2' > /dev/null", "err"),
        ("{} sh -c 'tty; tty <&2' 2> /dev/null < /dev/null", "not a tty"),
        ("{} sh -c 'read line; echo read $line >&2' > /dev/null < /etc/hostname", "read "),
    ],
)
def test_what_is_no_terminal_stays_what_it_is(daemon: AccessoryDaemon, line: str, seen: str) -> None:
    text = line.format(shlex.join(command(daemon, "--ipc", "a", "--")))
    with Screen(["sh", "-c", text]) as screen:
        before = screen.modes
        screen.wait()
        assert seen in screen.seen
        assert "\r\r\n" not in screen.seen
        assert screen.modes == before


def test_input_alone_from_the_terminal(daemon: AccessoryDaemon) -> None:
    text = shlex.join(command(daemon, "--ipc", "a", "--", "sh", "-c", "echo ready >&2; read line; echo got $line"))
    with Screen(["sh", "-c", f"{text} | tr a-z A-Z"]) as screen:
        before = screen.modes
        screen.read_until("ready")
        screen.type("words\r")
        screen.read_until("GOT WORDS")
        assert screen.wait() == 0
        assert screen.modes == before


def test_a_command_that_does_not_ask_for_keys_leaves_them_to_the_next_one(daemon: AccessoryDaemon) -> None:
    """As less(1) reads them; without that what is typed is the shell's."""
    take = "sh -c 'read key < /dev/tty; echo got $key; cat'"
    with shell(daemon) as screen:
        before = screen.modes
        screen.type(f"enter --pid a -- sh -c 'echo a; sleep 1; echo b' | {take}\n")
        wait_until(lambda: screen.foreground != screen.pid, "the job")
        screen.type("words\n")
        screen.read_until("got words")
        screen.read_until("a\r\nb\r\n")
        screen.read_until(PROMPT)
        screen.type("enter --pid a -- sleep 1 | cat\n")
        wait_until(lambda: screen.foreground != screen.pid, "the job")
        screen.type("echo ahead $((40 + 2))\n")
        screen.read_until("ahead 42")
        assert screen.modes[OUTPUT_MODES] == before[OUTPUT_MODES]


def test_a_command_is_interrupted_before_it_asks_for_keys(daemon: AccessoryDaemon) -> None:
    with shell(daemon) as screen:
        screen.type("enter --pid a -- sh -c 'echo rea''dy; exec sleep 1000' | cat\n")
        screen.read_until("ready")
        screen.type("\x03")
        screen.read_until(PROMPT)


def test_a_shell_asks_for_the_foreground(daemon: AccessoryDaemon) -> None:
    with shell(daemon) as screen:
        screen.type("enter --pid a -- bash --norc --noprofile -i 2>&1 | cat\n")
        wait_until(lambda: screen.is_raw and screen.foreground != screen.pid, "keys to be taken")
        screen.type("echo jobs $-\r")
        screen.read_until("jobs himBHs")
        screen.type("exit\r")
        screen.read_until(PROMPT)


# jobs


def test_a_command_is_stopped_by_its_key_and_goes_on_in_the_foreground(daemon: AccessoryDaemon) -> None:
    with shell(daemon) as screen:
        screen.type("enter --pid a -- cat\n")
        wait_until(lambda: screen.is_raw and screen.foreground != screen.pid, "the job")
        screen.type("one\r")
        screen.read_until("one\r\none\r\n")
        screen.type(STOP)
        screen.read_until("Stopped")
        screen.read_until(PROMPT)
        assert screen.foreground == screen.pid
        screen.type("stty -a | grep -c -- ' icanon'; fg\n")
        screen.read_until("1\r\n")
        wait_until(lambda: screen.is_raw and screen.foreground != screen.pid, "the job")
        screen.type("two\r")
        screen.read_until("two\r\ntwo\r\n")
        screen.type(END)
        screen.read_until(PROMPT)
        screen.type("stty -a | grep -c -- ' icanon'\n")
        screen.read_until("1\r\n")


def test_a_job_in_the_background_takes_nothing_from_the_terminal(daemon: AccessoryDaemon) -> None:
    with shell(daemon) as screen:
        screen.type("enter --pid a -- sh -c 'echo rea''dy; read line; echo got $line; exit 5' &\n")
        screen.read_until("ready")
        assert not set(children(screen.pid)) & {screen.foreground}
        screen.type("echo still $((40 + 2))\n")  # is the shell's
        screen.read_until("still 42")
        screen.type("fg; echo status $?\n")
        wait_until(lambda: screen.foreground != screen.pid, "the job")
        screen.type("words\r")
        screen.read_until("got words")
        screen.read_until("status 5")


def test_a_stopped_job_goes_on_in_the_background(daemon: AccessoryDaemon, folder: Path) -> None:
    with shell(daemon) as screen:
        go = folder / "go"
        os.mkfifo(go)
        # a shell that starts programs would be waited for while one of them is stopped between vfork and exec
        script = f"echo $((40 + 2)) go; read line < {go}"
        screen.type(f"enter --pid a -- sh -c '{script}'\n")
        screen.read_until("42 go")
        wait_until(lambda: screen.foreground != screen.pid, "the job")
        job = screen.foreground
        screen.type(STOP)
        screen.read_until("Stopped")
        screen.read_until(PROMPT)
        screen.type("bg\n")
        screen.read_until(PROMPT)
        wait_until(lambda: process_state(job) == "S", "the job to go on")
        go.write_text("go\n")
        screen.type("wait; echo all done\n")
        screen.read_until("Done")


def test_a_command_that_stops_where_nobody_would_continue_it_goes_on(daemon: AccessoryDaemon) -> None:
    """As the kernel has it for a group of processes that no shell looks after."""
    with Screen(command(daemon, "--pid", "a", "--", "sh", "-c", "kill -STOP $$; echo goes on")) as screen:
        assert screen.wait() == 0
        assert "goes on" in screen.seen


def test_a_key_of_the_first_moment_stops_the_job(daemon: AccessoryDaemon) -> None:
    """Before the command runs, and before it has a process group."""
    with shell(daemon) as screen:
        for _ in range(FIRST_MOMENTS):
            screen.type("enter --pid a -- cat\n")
            wait_until(lambda: screen.foreground != screen.pid, "the job")
            wait_until(lambda: children(screen.foreground), "its first process", pause=0)
            screen.type(STOP)
            screen.read_until("Stopped")
            screen.read_until(PROMPT)
            screen.type("kill -KILL %%; wait %%; clear\n")
            screen.read_until(PROMPT)


def test_a_command_that_stops_again_stays_stopped(daemon: AccessoryDaemon) -> None:
    with shell(daemon) as screen:
        screen.type("enter --pid a -- sh -c 'kill -STOP $$; echo o''ne; kill -STOP $$; echo t''wo'\n")
        for words in ("one", "two"):
            screen.read_until("Stopped")
            screen.read_until(PROMPT)
            screen.type("fg\n")
            screen.read_until(words)
        screen.read_until(PROMPT)


def test_the_key_stops_the_whole_job(daemon: AccessoryDaemon) -> None:
    """Only the command hears of it, and a shell waits until all processes of a pipeline have stopped."""
    with shell(daemon) as screen:
        screen.type("enter --pid a -- cat | cat\n")
        wait_until(lambda: screen.is_raw and screen.foreground != screen.pid, "the job")
        screen.type(STOP)
        screen.read_until("Stopped")
        screen.read_until(PROMPT)
        screen.type("fg\n")
        wait_until(lambda: screen.is_raw and screen.foreground != screen.pid, "the job")
        screen.type("words\r" + END)
        screen.read_until("words\r\nwords\r\n")
        screen.read_until(PROMPT)


@pytest.mark.parametrize("signum", [signal.SIGTSTP, signal.SIGSTOP])
@pytest.mark.parametrize("background", ["", "&"])
def test_a_command_stops_nobody_but_itself(daemon: AccessoryDaemon, background: str, signum: int) -> None:
    with shell(daemon) as screen:
        screen.type(f"enter --pid a -- sh -c 'kill -{signum} $$; echo go''es' | cat {background}\n")
        wait_until(lambda: "T" in map(process_state, children(screen.pid)), "its stop")
        assert sorted(map(process_state, children(screen.pid))) == ["S", "T"]
        if background:
            screen.type("kill -CONT %%\n")
        else:
            screen.type(STOP)
            screen.read_until("Stopped")
            screen.type("fg\n")
        screen.read_until("goes")


def test_output_of_the_background_stops_the_job_where_the_terminal_says_so(daemon: AccessoryDaemon) -> None:
    with shell(daemon) as screen:
        screen.type("stty tostop; enter --pid a -- echo some wo''rds &\n")
        screen.read_until(PROMPT)
        wait_until(lambda: "T" in map(process_state, children(screen.pid)), "its stop")
        screen.type("fg\n")
        screen.read_until("some words")
        screen.read_until(PROMPT)


# the end


def test_a_job_in_the_background_outlives_its_terminal(daemon: AccessoryDaemon, folder: Path) -> None:
    """Where its shell does not tell it to end."""
    go, done = folder / "go", folder / "done"
    os.mkfifo(go)
    with shell(daemon) as screen:
        script = f"echo rea''dy; read line < {go}; touch {done}"
        screen.type(f'enter --pid a -- sh -c "{script}" & disown\n')
        screen.read_until("ready")
        (job,) = set(children(screen.pid))
        screen.hang_up()
        wait_until(lambda: process_state(screen.pid) == "Z", "the end of the shell")
        time.sleep(3 * LOOK_AGAIN)  # it has seen that the terminal is gone
        writer = os.open(go, os.O_WRONLY | os.O_NONBLOCK)  # raises where the command has ended
        os.write(writer, b"go\n")
        os.close(writer)
        wait_until(done.exists, "the end of the command")
        wait_until(lambda: process_state(job) in ("", "Z"), "the end of the job")


def test_the_command_hears_that_spawn_enter_was_killed(daemon: AccessoryDaemon, folder: Path) -> None:
    done = folder / "done"
    script = f"trap 'touch {done}; exit' HUP; echo ready; while :; do read line; done"
    with Screen(command(daemon, "--pid", "a", "--", "sh", "-c", script)) as screen:
        screen.read_until("ready")
        wait_until(lambda: screen.is_raw, "raw modes")
        os.kill(screen.pid, signal.SIGKILL)
        wait_until(done.exists, "the signal")


def test_nobody_who_writes_for_ever_keeps_it(own_daemon: AccessoryDaemon) -> None:
    script = "trap '' HUP; yes & sleep 0.1; exit 3"
    with Screen(command(own_daemon, "--pid", "a", "--", "sh", "-c", script)) as screen:
        assert screen.wait() == 3
    assert own_daemon.ctl("stop", "accessory").returncode == 0  # ends what is left in the namespace


def test_a_terminal_that_hangs_up_is_gone_for_the_command_too(daemon: AccessoryDaemon, folder: Path) -> None:
    done = folder / "done"
    script = f"trap '' HUP; echo ready; read line; echo $? > {done}"
    with Screen(command(daemon, "--pid", "a", "--", "sh", "-c", script)) as screen:
        screen.read_until("ready")
        wait_until(lambda: screen.is_raw, "raw modes")
        screen.hang_up()
        wait_until(done.exists, "the end of the command's input")


def test_without_a_terminal_a_stop_is_passed_on(daemon: AccessoryDaemon, folder: Path) -> None:
    with shell(daemon) as screen:
        out = folder / "count"
        loop = f"'while :; do echo x >> {out}; sleep 0.02; done'"
        screen.type(f"enter --ipc a -- sh -c {loop} < /dev/null > /dev/null 2>&1\n")
        wait_until(out.exists, "the command")
        (job,) = children(screen.pid)
        (child,) = children(job)
        screen.type(STOP)
        screen.read_until("Stopped")
        assert process_state(child) == "T"
        screen.type("fg\n")
        wait_until(lambda: process_state(child) != "T", "the command to go on")
        screen.type("\x03")
        screen.read_until(PROMPT)
        wait_until(lambda: process_state(child) in ("", "Z"), "its end")
