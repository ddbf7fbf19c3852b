"""A spawnd that finds changed definitions, or a state file that is damaged, old, or of another user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.state.state import FORMAT
from tests.daemon import Daemon, start_time, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive, links, with_argument
from tests.integration.test_bad_input import needs_root
from tests.integration.test_life import SLEEP
from tests.integration.test_loss import QUICK
from tests.integration.test_reload import reload
from tests.integration.test_reload_edges import ENV, tcp
from tests.ports import free_port

Program = Callable[[str, str], str]
Record = dict[str, Any]


def lines(daemon: Daemon) -> list[Record]:
    """The state file, of which the last word about a thing counts."""
    return [json.loads(line) for line in (daemon.runtime / "state").read_text().splitlines()]


def write(daemon: Daemon, records: list[Record]) -> None:
    (daemon.runtime / "state").write_text("".join(json.dumps(record) + "\n" for record in records))


def unit_of(records: list[Record], name: str) -> Record:
    unit: Record = [record["unit"] for record in records if record.get("name") == name and "unit" in record][-1]
    return unit


# definitions


def test_definitions_that_have_changed_while_there_was_no_spawnd(spawnd: Start) -> None:
    port, other_port = free_port(), free_port()
    daemon = spawnd(
        f"""
        same = {{ {SLEEP}, {tcp(port)} }}
        softer = {{ {SLEEP} }}
        changed = {{ {SLEEP}, {tcp(other_port)} }}
        removed = {{ {SLEEP} }}
        """
    )
    pids = {name: daemon.wait_running(name) for name in ("same", "softer", "changed", "removed")}
    socket_of_changed = links(pids["changed"])[3]
    daemon.lose()
    daemon.definitions.write_text(
        f"""
        same = {{ {SLEEP}, {tcp(port)} }}
        softer = {{ {SLEEP}, stop_timeout = "3s" }}
        changed = {{ {SLEEP}, {tcp(other_port)}, nice = 1 }}
        added = {{ {SLEEP} }}
        """
    )
    daemon.again()
    daemon.wait_running("added")
    changed = daemon.wait_running("changed", other_than=pids["changed"])
    assert (daemon.pid_of("same"), daemon.pid_of("softer")) == (pids["same"], pids["softer"])
    assert links(changed)[3] == socket_of_changed
    wait_until(lambda: list(daemon.services()) == ["same", "softer", "changed", "added"], "the end of the removed one")
    assert not alive(pids["removed"])
    assert not alive(pids["changed"])


@pytest.mark.parametrize("broken", ["a = {", 'a = { exec = "relative" }', "error('no')"])
def test_with_broken_definitions_the_old_ones_stay_in_force(spawnd: Start, broken: str) -> None:
    daemon = spawnd(f'_SUPERVISOR = {{ log_level = "debug" }}\na = {{ {SLEEP}, {QUICK} }}\nb = {{ {SLEEP}, {QUICK} }}')
    pids = {name: daemon.wait_running(name) for name in "ab"}
    daemon.lose()
    daemon.definitions.write_text(broken)
    os.kill(pids["b"], signal.SIGKILL)
    wait_until(lambda: not alive(pids["b"]), "its end")
    daemon.again()
    daemon.wait_log("definitions not changed: 1 problem")
    assert daemon.pid_of("a") == pids["a"]
    second = daemon.wait_running("b", other_than=pids["b"])
    os.kill(pids["a"], signal.SIGKILL)
    daemon.wait_running("a", other_than=pids["a"])
    assert daemon.ctl("restart", "a").returncode == 0
    assert "debug   a: restart requested" in daemon.log(), "the settings, too"
    reload(daemon, f"b = {{ {SLEEP}, {QUICK} }}")
    wait_until(lambda: list(daemon.services()) == ["b"], "the new definitions")
    assert daemon.pid_of("b") == second


def test_broken_definitions_prevent_a_start_where_there_is_nothing_to_go_on_with(folder: Path) -> None:
    daemon = Daemon(folder, f"a = {{ {SLEEP} }}")
    with daemon:
        daemon.wait_running("a")
    daemon.definitions.write_text("a = {")
    assert daemon.start().process is not None
    assert daemon.process is not None
    assert daemon.process.wait(20) == 78


# the state file


def test_a_last_line_that_is_torn_was_never_written(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}")
    pids = {name: daemon.wait_running(name) for name in "ab"}
    daemon.lose()
    with (daemon.runtime / "state").open("a") as file:
        file.write('{"name":"a","unit":{"life":{"state":"stopped"')
    daemon.again()
    assert {name: row["pid"] for name, row in daemon.services().items()} == pids
    assert "cannot be read" not in daemon.log()


def test_lines_that_cannot_be_read_are_named_and_the_rest_counts(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}")
    pids = {name: daemon.wait_running(name) for name in "ab"}
    daemon.lose()
    data = (daemon.runtime / "state").read_bytes()
    first, _, rest = data.partition(b"\n")
    (daemon.runtime / "state").write_bytes(first + b"\n\xff\xfe garbage\n[]\n" + rest + b'{"new": "kind"}\n')
    daemon.again()
    assert {name: row["pid"] for name, row in daemon.services().items()} == pids
    assert "3 lines cannot be read, ignored" in daemon.log()


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("boot", "6f7d6a3e-0000-0000-0000-000000000000", "another boot"),
        ("pids", 1, "another PID namespace"),
        ("spawnd", None, "no beginning"),
    ],
)
def test_a_state_that_is_not_of_here_is_not_used(spawnd: Start, key: str, value: object, why: str) -> None:
    """The processes that it names are anybody's, and live on."""
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    daemon.lose()
    header, *rest = lines(daemon)
    header[key] = value
    if value is None:
        del header[key]
    write(daemon, [header, *rest])
    daemon.again()
    daemon.wait_log(f"is not used: it {'has' if value is None else 'is of'} {why}")
    assert daemon.wait_running("a") != pid
    assert alive(pid)
    assert lines(daemon)[0]["pid"] == daemon.pid, "it has been written anew"


def test_what_a_newer_version_left_is_ended_and_started_anew(spawnd: Start, program: Program, folder: Path) -> None:
    """Its ports are free before they are opened again, also where somebody beside the main process has them."""
    script = program("forks", '#!/bin/sh\nsleep 424242 &\n: > "$1/$2"\nexec sleep 100000\n')
    ports = {name: free_port() for name in "abc"}
    text = "".join(
        f'{name} = {{ exec = "{script}", arg = {{ "@/out", "{name}" }}, {ENV}, {tcp(port)} }}\n'
        for name, port in ports.items()
    )
    daemon = spawnd(text)
    pids = {name: daemon.wait_running(name) for name in ports}
    wait_until(lambda: all((folder / "out" / name).exists() for name in ports), "the second processes")
    daemon.lose()
    old = daemon.survivors()
    assert len(old) == 6
    header, *rest = lines(daemon)
    for record in rest:
        if "unit" in record:
            record["unit"] = {key: record["unit"][key] for key in ("pid", "started") if key in record["unit"]}
    write(daemon, [header | {"spawnd": FORMAT + 1}, {"settings": {"mood": "good"}}, *rest])
    daemon.again()
    for name, pid in pids.items():
        daemon.wait_running(name, other_than=pid)
    assert not any(map(alive, old))
    assert daemon.log().count("cannot be taken over, so it is ended: it is of another version") == 3
    assert "definitions reloaded: 3 services" in daemon.log(), "no address was taken"


@pytest.mark.parametrize("where", ["service", "unit.life", "settings", "unit"])
def test_a_key_that_is_not_known(spawnd: Start, where: str) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}")
    pids = {name: daemon.wait_running(name) for name in "ab"}
    daemon.lose()
    records = lines(daemon)
    for record in records:
        if where == "settings" and "settings" in record:
            record["settings"]["mood"] = "good"
        if record.get("name") == "a":
            if where == "service" and "service" in record:
                record["service"]["mood"] = "good"
            if where == "unit" and "unit" in record:
                record["unit"]["mood"] = "good"
            if where == "unit.life" and "unit" in record:
                record["unit"]["life"]["mood"] = "good"
    write(daemon, records)
    daemon.again()
    ended = where in ("service", "unit.life")
    assert ("a: cannot be taken over, so it is ended" in daemon.log()) is ended
    first = daemon.wait_running("a", other_than=pids["a"] if ended else None)
    assert (first != pids["a"]) is ended
    assert alive(pids["a"]) is not ended
    assert daemon.pid_of("b") == pids["b"]


def test_a_stranger_with_the_pid_of_a_service_is_not_touched(spawnd: Start) -> None:
    """As main process of one service, among the others of a second."""
    daemon = spawnd(
        f'a = {{ {SLEEP} }}\nb = {{ {SLEEP}, kill_mode = "process" }}\nc = {{ {SLEEP}, kill_mode = "process" }}'
    )
    pids = {name: daemon.wait_running(name) for name in "abc"}
    command = [sys.executable, "-c", "import os, time; os.setsid(); print(flush=True); time.sleep(100000)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as stranger:
        try:
            assert stranger.stdout is not None
            stranger.stdout.readline()
            daemon.lose()
            os.kill(pids["a"], signal.SIGKILL)
            os.kill(pids["c"], signal.SIGKILL)
            wait_until(lambda: not alive(pids["a"]) and not alive(pids["c"]), "their end")
            records = lines(daemon)
            started = start_time(stranger.pid)
            assert started is not None
            unit_of(records, "a").update(pid=stranger.pid, started=started - 1)
            unit_of(records, "b").update(others=[[stranger.pid, started + 1]])
            unit_of(records, "c").update(pid=stranger.pid, started=started + 1)
            write(daemon, records)
            daemon.again()
            daemon.wait_running("a", other_than=stranger.pid)
            daemon.wait_running("c", other_than=stranger.pid)
            assert daemon.pid_of("b") == pids["b"]
            assert daemon.ctl("restart", "all").returncode == 0
            assert daemon.stop() == 0
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_descriptor_that_makes_no_sense_of_one_that_has_ended(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}")
    pids = {name: daemon.wait_running(name) for name in "ab"}
    daemon.lose()
    os.kill(pids["a"], signal.SIGKILL)
    wait_until(lambda: not alive(pids["a"]), "its end")
    records = lines(daemon)
    unit_of(records, "a")["table"] = {"99": 5}
    write(daemon, records)
    daemon.again()
    daemon.wait_running("a", other_than=pids["a"])
    assert daemon.pid_of("b") == pids["b"]


def test_a_state_that_makes_no_sense_harms_nobody(spawnd: Start) -> None:
    daemon = spawnd(f"a = {{ {SLEEP} }}\nb = {{ {SLEEP} }}\nc = {{ {SLEEP} }}")
    pids = {name: daemon.wait_running(name) for name in "abc"}
    daemon.lose()
    header, *rest = lines(daemon)
    unit_of(rest, "a").update(pid="x")
    unit_of(rest, "b").update(table={"3": None}, others=7)
    write(daemon, [header | {"pid": []}, *rest, {"name": "d", "unit": {"pid": 10**30, "started": 0}}])
    daemon.remember(pids.values())
    daemon.again()
    daemon.wait_running("a", other_than=pids["a"])
    daemon.wait_running("b", other_than=pids["b"])
    assert daemon.pid_of("c") == pids["c"]
    assert list(daemon.services()) == ["a", "b", "c"]
    assert not alive(pids["b"])


# the folder


@needs_root
def test_a_full_run_time_folder_stops_nothing(folder: Path) -> None:
    """It is a file system of 256 KiB, in a mount namespace of spawnd's own."""
    run = folder / "run"
    run.mkdir()
    daemon = Daemon(folder, f'a = {{ {SLEEP}, {QUICK} }}\nb = {{ {SLEEP}, status = "stop" }}')
    daemon.prefix = [
        "unshare", "--mount", "--propagation", "private", "sh", "-c",
        f'mount -t tmpfs -o size=256k,mode=755 tmpfs {run} && exec "$@"', "sh",
    ]  # fmt: skip
    daemon.start()
    inside = Path(f"/proc/{daemon.pid}/root{run}")
    daemon.socket = inside / "control"
    try:
        wait_until(daemon.answers, "an answer")
        first = daemon.wait_running("a")
        filler = inside / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            _fill(file.write)
        os.kill(first, signal.SIGKILL)
        second = daemon.wait_running("a", other_than=first)
        wait_until(lambda: _restart_until(daemon, "state: No space left on device"), "what does not fit any more")
        os.kill(second, signal.SIGKILL)
        daemon.wait_running("a", other_than=second)
        wait_until(lambda: daemon.services()["a"]["state_s"] > 6, "another try", patience=30)
        assert daemon.log().count("cannot write") == 1
        filler.unlink()
        assert daemon.ctl("restart", "b").returncode == 0
        state = [json.loads(line) for line in (inside / "state").read_text().splitlines()]
        assert unit_of(state, "b")["pid"] == daemon.pid_of("b"), "a new process is written down at once"
        daemon.wait_log("written to")
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def _restart_until(daemon: Daemon, text: str) -> bool:
    assert daemon.ctl("restart", "b").returncode == 0
    return text in daemon.log()


def _fill(write: Callable[[bytes], object]) -> None:
    while True:
        write(b"x" * 1024)


HIDES = f"""#!{sys.executable} -IS
import ctypes, time
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE: as a program with secrets does
open({{path!r}}, "w").close()
time.sleep(100000)
"""


@needs_root
def test_an_ordinary_user_takes_over_what_the_kernel_lets_it(folder: Path, program: Program) -> None:
    ports = free_port(), free_port()
    script = program("hides", HIDES.format(path=str(folder / "out" / "hidden")))
    (folder / "run").mkdir()
    os.chown(folder / "run", 65534, 65534)
    daemon = Daemon(folder, f'a = {{ {SLEEP}, {tcp(ports[0])} }}\nb = {{ exec = "{script}", {tcp(ports[1])} }}')
    daemon.prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*daemon.prefix, "test", "-x", daemon.program], check=False).returncode:
        pytest.skip(f"nobody cannot execute {daemon.program}")
    with daemon:
        pids = {name: daemon.wait_running(name) for name in "ab"}
        wait_until((folder / "out" / "hidden").exists, "its prctl")
        sockets = {name: links(pid)[3] for name, pid in pids.items()}
        daemon.lose()
        daemon.again()
        assert {name: row["pid"] for name, row in daemon.services().items()} == pids
        assert "b: descriptors not got back: 3" in daemon.log()
        if not _is_kept_from_others():
            assert sockets["a"] in links(daemon.pid).values()
            assert "a: descriptors not got back" not in daemon.log()
        for name, pid in pids.items():
            assert daemon.ctl("restart", name).returncode == 0
            assert daemon.wait_running(name, other_than=pid) != pid
        assert daemon.stop() == 0
    assert not any(map(alive, pids.values()))


def _is_kept_from_others() -> bool:
    """Whether one may ptrace(2), as pidfd_getfd(2) needs, only what is below oneself."""
    path = Path("/proc/sys/kernel/yama/ptrace_scope")
    return path.exists() and path.read_text().strip() != "0"


def test_nothing_of_the_test_s_own_is_left(folder: Path) -> None:
    """The harness ends what a lost spawnd left, also where nobody takes it over."""
    daemon = Daemon(folder, f'a = {{ exec = "/bin/sh", arg = {{ "-c", "sleep 100000; :", "{folder}/mark" }}, {ENV} }}')
    with daemon:
        daemon.wait_running("a")
        pids = wait_until(lambda: with_argument(folder / "mark"), "the shell")
        daemon.lose()
    assert not any(map(alive, pids))
    assert daemon.survivors() == []
