"""Processes that leave the session of their service, where there is no cgroup: ended where they are proved its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import fuse
from tests.daemon import Daemon, children, command_name, wait_until
from tests.hung import PROGRAM, is_hung
from tests.integration.conftest import Start
from tests.integration.processes import started
from tests.integration.test_cgroups import pids_in, subtree
from tests.integration.test_loss_files import lines, unit_of, write
from tests.unit.waiting import child_process

__all__ = ["subtree"]

Program = Callable[[str, str], str]
ENV = 'env = { PATH = "/bin:/usr/bin" }'
# the shell that starts it has ended when the service goes on, so it is a child of spawnd by then
DETACHES = "#!/bin/sh\nsh -c 'setsid sleep 424242 & echo $! >> @/out/pids'\nexec sleep 100000\n"
CLEARS = "#!/bin/sh\nsh -c 'setsid env -i /bin/sleep 424242 & echo $! >> @/out/pids'\nexec sleep 100000\n"
# it has left the session by the time that the first process exits, with whose group it would be killed
DAEMON = """#!/bin/sh
rm -f @/out/left
setsid sh -c 'echo $$ >> @/out/pids; : > @/out/left; exec sleep 424242' &
until [ -e @/out/left ]; do sleep 0.01; done
exit 0
"""


def pids(folder: Path) -> list[int]:
    path = folder / "out" / "pids"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def is_gone(pid: int) -> bool:
    return command_name(pid) != "sleep"


def wait_stray(daemon: Daemon, folder: Path, count: int) -> int:
    """The last of so many, once it is a child of spawnd's and has its program."""
    wait_until(lambda: len(pids(folder)) == count, "another stray")
    pid = pids(folder)[-1]
    wait_until(lambda: pid in children(daemon.pid) and os.getsid(pid) == pid, "a stray with spawnd")
    wait_until(lambda: command_name(pid) == "sleep", "its program")
    return pid


def wait_older(stray: int) -> None:
    """Wait until it is older, in clock ticks, than a process that is started now: else it may be one of the next."""

    def is_older() -> bool:
        with child_process(signal.pause) as pid:
            return started(pid) > started(stray)

    wait_until(is_older, "a later start")


def start(spawnd: Start, program: Program, folder: Path, text: str, keys: str = "") -> Daemon:
    script = program("script", text.replace("@", str(folder)))
    return spawnd(f's = {{ exec = "{script}", {ENV}, healthy_after = 0, {keys} }}')


def test_they_do_not_pile_up(spawnd: Start, program: Program, folder: Path) -> None:
    daemon = start(spawnd, program, folder, DETACHES)
    main = None
    for count in range(1, 4):
        main = daemon.wait_running("s", other_than=main)
        stray = wait_stray(daemon, folder, count)
        wait_until(lambda: all(map(is_gone, pids(folder)[:-1])), "the end of those before")
        assert not is_gone(stray)
        wait_older(stray)
        os.kill(main, signal.SIGKILL)
    daemon.wait_running("s", other_than=main)
    wait_stray(daemon, folder, 4)
    assert daemon.ctl("stop", "s").returncode == 0
    wait_until(lambda: all(map(is_gone, pids(folder))), "the end of all of them")
    assert "behind" not in daemon.log()


def test_those_of_a_lost_spawnd_end_with_their_service(spawnd: Start, program: Program, folder: Path) -> None:
    """They are children of process 1, and spawnd is told of none."""
    daemon = start(spawnd, program, folder, DETACHES)
    main = daemon.wait_running("s")
    first = wait_stray(daemon, folder, 1)
    wait_older(first)
    daemon.lose()
    daemon.again()
    assert not is_gone(first)
    os.kill(main, signal.SIGKILL)
    daemon.wait_running("s", other_than=main)
    wait_until(lambda: is_gone(first), "the end of the first one")
    second = wait_stray(daemon, folder, 2)
    daemon.lose()
    daemon.again()
    assert not is_gone(second)
    assert daemon.ctl("stop", "s").returncode == 0
    wait_until(lambda: is_gone(second), "the end of the second one")
    assert "behind" not in daemon.log()


@contextmanager
def stray_of(pid: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the mark of a service that is no child of its spawnd, as after a loss."""
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    mark = next(variable for variable in environ if variable.startswith(b"SPAWND_MARK="))
    with subprocess.Popen(["/usr/bin/env", "-i", mark, "/bin/sleep", "424242"], start_new_session=True) as process:
        try:
            wait_until(lambda: command_name(process.pid) == "sleep", "its program")
            wait_older(process.pid)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("moment", ["its successor lives", "it backs off", "its successor is about to be made"])
def test_a_loss_right_after_a_crash_does_not_spare_them(spawnd: Start, moment: str) -> None:
    """Another service of which processes may live on keeps its own."""
    keys = 'backoff = { first = "1h", max = "1h" }' if moment == "it backs off" else "healthy_after = 0"
    sleep = f'exec = "/bin/sleep", arg = {{ "100000" }}, {ENV}'
    daemon = spawnd(f"""
        s = {{ {sleep}, {keys} }}
        spares = {{ {sleep}, kill_mode = "process", healthy_after = 0 }}
    """)
    main, other = daemon.wait_running("s"), daemon.wait_running("spares")
    with stray_of(main) as stray, stray_of(other) as spared:
        os.kill(main, signal.SIGKILL)
        os.kill(other, signal.SIGKILL)
        successor = None
        if moment == "it backs off":
            daemon.wait_state("s", "backoff")
        else:
            successor = daemon.wait_running("s", other_than=main)
        daemon.wait_running("spares", other_than=other)
        daemon.lose()
        if moment == "its successor is about to be made":
            assert successor is not None
            os.kill(successor, signal.SIGKILL)
            forget_process(daemon, "s")
        assert stray.poll() is None
        daemon.again()
        wait_until(lambda: stray.poll() is not None, "the end of the stray")
        assert spared.poll() is None
        if moment == "its successor lives":
            assert daemon.pid_of("s") == successor
        elif successor is not None:
            daemon.wait_running("s", other_than=successor)


def forget_process(daemon: Daemon, name: str) -> None:
    """Have the state say that the process of a service was about to be made."""
    records = lines(daemon)
    unit = unit_of(records, name)
    for key in ("pid", "started", "run"):
        del unit[key]
    unit["life"] |= {"state": "starting", "step": "exec"}
    write(daemon, records)


def test_a_descendant_in_a_session_of_its_own_is_told_to_end_and_waited_for(
    spawnd: Start, program: Program, folder: Path
) -> None:
    """It has no mark, but it was seen below the main process before the stop signal."""
    child = "trap 'sleep 0.2; : > @/out/told; exit 0' TERM\necho $$ >> @/out/pids\nwhile :; do sleep 0.02; done\n"
    name = program("child", f"#!/bin/sh\n{child}".replace("@", str(folder)))
    daemon = start(
        spawnd, program, folder, f'#!/bin/sh\nsetsid env -i PATH="$PATH" {name} &\nwhile :; do sleep 1; done\n'
    )
    wait_until(lambda: pids(folder), "the child")
    assert daemon.ctl("stop", "s").returncode == 0
    assert (folder / "out" / "told").exists()
    assert not Path(f"/proc/{pids(folder)[0]}").exists()


def test_those_of_others_and_those_without_proof_live_on_and_are_told_of(
    spawnd: Start, program: Program, folder: Path
) -> None:
    other = program("other", DETACHES.replace("@", str(folder)))
    clears = program("clears", CLEARS.replace("@", str(folder)))
    daemon = spawnd(f"""
        other = {{ exec = "{other}", {ENV}, healthy_after = 0 }}
        s = {{ exec = "{clears}", {ENV}, healthy_after = 0, status = "stop" }}
    """)
    daemon.wait_running("other")
    of_other = wait_stray(daemon, folder, 1)
    assert daemon.ctl("start", "s").returncode == 0
    without = wait_stray(daemon, folder, 2)
    try:
        assert daemon.ctl("stop", "s").returncode == 0
        daemon.wait_log(f"cannot tell which service left process {without} 'sleep' behind: no mark")
        assert not is_gone(without)
        assert not is_gone(of_other)
        assert daemon.ctl("start", "s").returncode == 0
        another = wait_stray(daemon, folder, 3)
        assert daemon.ctl("stop", "s").returncode == 0
        daemon.wait_log(f"cannot tell which service left process {another} 'sleep' behind: no mark")
        assert "s: left" not in daemon.log()
    finally:
        daemon.remember(pids(folder))


@pytest.mark.parametrize("place", ["cgroup", "alone"])
def test_a_program_that_goes_into_the_background_is_told_of(
    place: str, request: pytest.FixtureRequest, folder: Path, program: Program
) -> None:
    settings = ""
    if place == "cgroup":
        if os.geteuid() != 0:
            pytest.skip("needs root: makes a cgroup")
        settings = f'_SUPERVISOR = {{ cgroup = "{request.getfixturevalue("subtree")}" }}\n'
    spawnd: Start = request.getfixturevalue("spawnd")
    script = program("script", DAEMON.replace("@", str(folder)))
    daemon = spawnd(f'{settings}s = {{ exec = "{script}", {ENV}, start_limit = 1, healthy_after = "1m" }}')
    daemon.wait_state("s", "failed")
    said = "exited with status 0 and left 1 process behind"

    def reply() -> dict[str, str]:
        found: dict[str, str] = json.loads(daemon.ctl("why", "--json", "s").stdout)
        return found

    wait_until(lambda: said in reply()["answer"], "the number of what it has left")
    assert "does it go into the background?" in reply()["hint"]
    assert "`forking = true`" in reply()["hint"]
    assert "`task = true`" in reply()["hint"]
    assert "left 1 process behind" in daemon.ctl("status", "s").stdout
    assert "does it go into the background?" in daemon.log()
    wait_until(lambda: all(map(is_gone, pids(folder))), "the end of it")


def test_a_service_in_a_cgroup_has_no_mark(subtree: Path, spawnd: Start) -> None:
    daemon = spawnd(f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\ns = {{ exec = "/bin/sleep", arg = {{ "100000" }} }}')
    pid = daemon.wait_running("s")
    assert pids_in(subtree / "s") == [pid]
    assert b"SPAWND_MARK" not in Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_a_process_whose_environment_cannot_be_read_holds_up_nobody(
    spawnd: Start, program: Program, folder: Path
) -> None:
    """It has left its service and holds its mmap lock; a stray of another service and a daemon are found."""
    hung = program("hung", f"#!{sys.executable} -ISB\n{PROGRAM}")
    hangs = f"sh -c 'setsid {hung} @/out/link & echo $! >> @/out/hung'\nexec sleep 100000\n"
    daemon_text = "#!/bin/sh\nsetsid sh -c 'echo $$ > @/out/new; mv @/out/new @/out/pid; exec sleep 424242' &\nexit 0\n"
    with fuse.unanswering(fuse.READ) as path:
        (folder / "out" / "link").symlink_to(path)
        names = {
            name: program(name, text.replace("@", str(folder)))
            for name, text in (("hangs", f"#!/bin/sh\n{hangs}"), ("strays", DETACHES), ("forks", daemon_text))
        }
        daemon = spawnd(f"""
            hangs = {{ exec = "{names["hangs"]}", {ENV}, user = "root" }}
            s = {{ exec = "{names["strays"]}", {ENV} }}
            f = {{ exec = "{names["forks"]}", {ENV}, forking = true, pid_file = "@/out/pid", status = "stop" }}
        """)
        told = folder / "out" / "hung"
        stuck = int(wait_until(lambda: told.exists() and told.read_text(), "the process that is to hang"))
        wait_until(lambda: is_hung(stuck), "a process that hangs")
        stray = wait_stray(daemon, folder, 1)
        assert daemon.ctl("start", "f").returncode == 0
        assert daemon.wait_running("f") == int((folder / "out" / "pid").read_text())
        assert daemon.ctl("stop", "s").returncode == 0
        wait_until(lambda: is_gone(stray), "the end of the stray")
        assert is_hung(stuck)
