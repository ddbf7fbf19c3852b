"""The effect of a stop, a restart and a crash on the processes beside the main one, in a cgroup and without one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon, command_name, descendants, wait_until
from tests.integration.conftest import Start
from tests.integration.processes import alive, dated, started
from tests.integration.test_cgroups import subtree

__all__ = ["subtree"]

Program = Callable[[str, str], str]
# $1 is a folder: `up` is made when both are, `told` has a line for each TERM that the other process gets,
# `ended` is made at its end; it waits for `go` first.  The main process makes `main` when it is told.
PAIR = """#!/bin/sh
(
    trap 'echo told >> "$1/told"' TERM
    : > "$1/up"
    until [ -s "$1/told" ]; do sleep 0.02; done
    until [ -e "$1/go" ]; do sleep 0.02; done
    : > "$1/ended"
) &
trap ': > "$1/main"; exit 0' TERM
while :; do sleep 0.02; done
"""
# the main process ends only when the other one has been told
TOGETHER = PAIR.replace("""': > "$1/main"; exit 0'""", """'until [ -s "$1/told" ]; do sleep 0.02; done; exit 0'""")
DEAF = """#!/bin/sh
(trap '' TERM; : > "$1/up"; while :; do sleep 0.02; done) &
trap 'exit 0' TERM
while :; do sleep 0.02; done
"""
PLACES = [
    pytest.param(True, id="cgroup", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a cgroup")),
    pytest.param(False, id="alone"),
]


class Bench:
    """A service `s` of two processes, both of them up."""

    def __init__(self, start: Start, make: Program, folder: Path, subtree: Path | None) -> None:
        self._start = start
        self._make = make
        self.out = folder / "out"
        self.has_cgroup = subtree is not None
        self._settings = f'_SUPERVISOR = {{ cgroup = "{subtree}" }}\n' if subtree is not None else ""

    def run(self, text: str, keys: str = "") -> Daemon:
        env = 'env = { PATH = "/bin:/usr/bin" }'
        self.daemon = self._start(
            f'{self._settings}s = {{ exec = "{self._make("pair", text)}", arg = {{ "{self.out}" }}, {env}, {keys} }}'
        )
        wait_until((self.out / "up").exists, "the second process")
        self.main = self.daemon.wait_running("s")
        self.all = [self.main, *descendants(self.main)]
        return self.daemon

    def both(self) -> list[int]:
        # a `sleep` has their name for a moment
        return wait_until(lambda: pairs if len(pairs := self._pairs()) == 2 else None, "the two processes") or []

    def _pairs(self) -> list[int]:
        self.all = [self.main, *descendants(self.main)]
        return [pid for pid in self.all if command_name(pid) == "pair"]

    def told(self) -> int:
        path = self.out / "told"
        return len(path.read_text().split()) if path.exists() else 0

    def wait_told(self) -> None:
        wait_until(lambda: self.told() > 0, "TERM to the other process")

    def has_ended(self) -> bool:
        return not any(command_name(pid) == "pair" for pid in self.all)


@pytest.fixture(params=PLACES)
def bench(request: pytest.FixtureRequest, folder: Path, program: Program) -> Bench:
    place = request.getfixturevalue("subtree") if request.param else None
    return Bench(request.getfixturevalue("spawnd"), program, folder, place)


def test_all_tells_the_others_once_the_main_process_has_ended(bench: Bench) -> None:
    daemon = bench.run(PAIR)
    stop = daemon.ctl("stop", "--no-wait", "s")
    assert stop.returncode == 0, stop.stderr
    bench.wait_told()
    assert (bench.out / "main").exists()
    assert daemon.state("s") == "stopping"
    (bench.out / "go").touch()
    daemon.wait_state("s", "stopped")
    assert bench.told() == 1
    assert (bench.out / "ended").exists()
    assert bench.has_ended()


def test_all_tells_them_at_a_restart(bench: Bench) -> None:
    daemon = bench.run(PAIR)
    (bench.out / "go").touch()
    assert daemon.ctl("restart", "s").returncode == 0
    assert (bench.out / "ended").exists()
    assert daemon.wait_running("s", other_than=bench.main)


def test_all_kills_what_does_not_end_within_stop_timeout(bench: Bench) -> None:
    daemon = bench.run(DEAF, 'stop_timeout = "500ms"')
    before = time.monotonic()
    assert daemon.ctl("stop", "s").returncode == 0
    assert time.monotonic() - before >= 0.5
    wait_until(bench.has_ended, "the end of both")


def test_a_second_order_to_end_kills_what_is_left(bench: Bench) -> None:
    daemon = bench.run(DEAF, "stop_timeout = false")
    daemon.signal(signal.SIGTERM)
    daemon.wait_log("stopping 1 service")
    wait_until(lambda: command_name(bench.main) != "pair", "the end of the main process")
    daemon.signal(signal.SIGTERM)
    assert daemon.stop() == 0
    assert bench.has_ended()


def test_group_tells_all_at_once(bench: Bench) -> None:
    """The main process would never end otherwise."""
    daemon = bench.run(TOGETHER, 'kill_mode = "group", stop_timeout = "1m"')
    (bench.out / "go").touch()
    assert daemon.ctl("stop", "s").returncode == 0
    assert bench.told() == 1
    assert (bench.out / "ended").exists()


def test_mixed_kills_the_others_with_the_main_process(bench: Bench) -> None:
    daemon = bench.run(PAIR, 'kill_mode = "mixed", stop_timeout = "1m"')
    assert daemon.ctl("stop", "s").returncode == 0
    wait_until(bench.has_ended, "the end of both")
    assert bench.told() == 0


@pytest.mark.parametrize("mode", ["all", "group", "mixed"])
def test_a_crash_kills_them_at_once(bench: Bench, mode: str) -> None:
    daemon = bench.run(PAIR, f'kill_mode = "{mode}", healthy_after = 0, stop_timeout = "1m"')
    others = bench.all[1:]
    os.kill(bench.main, signal.SIGKILL)
    daemon.wait_running("s", other_than=bench.main)
    wait_until(lambda: not any(command_name(pid) == "pair" for pid in others), "the end of the others")
    assert bench.told() == 0
    (bench.out / "go").touch()  # for the stop at the end of the test


def test_a_start_while_they_end_follows(bench: Bench) -> None:
    daemon = bench.run(PAIR)
    daemon.ctl("stop", "--no-wait", "s")
    bench.wait_told()
    assert daemon.ctl("start", "--no-wait", "s").returncode == 0
    assert daemon.state("s") == "stopping"
    (bench.out / "go").touch()
    daemon.wait_running("s", other_than=bench.main)
    assert bench.told() == 1


def test_spawnd_that_executes_itself_anew_goes_on_waiting_for_them(bench: Bench) -> None:
    daemon = bench.run(PAIR, 'stop_timeout = "1m"')
    daemon.ctl("stop", "--no-wait", "s")
    bench.wait_told()
    assert daemon.ctl("reexec").returncode == 0
    wait_until(daemon.answers, "an answer")
    assert daemon.state("s") == "stopping"
    (bench.out / "go").touch()
    daemon.wait_state("s", "stopped")
    assert bench.told() == 1
    assert (bench.out / "ended").exists()


# the main process ends once it may
PATIENT = PAIR.replace("exit 0'", """until [ -e "$1/leave" ]; do sleep 0.02; done; exit 0'""")


def test_a_stop_goes_on_with_the_next_spawnd(bench: Bench) -> None:
    """The others have the rest of the time, and are told once."""
    daemon = bench.run(PAIR, "stop_timeout = false")
    both = bench.both()
    assert daemon.ctl("stop", "--no-wait", "s").returncode == 0
    bench.wait_told()
    assert daemon.state("s") == "stopping"  # in a later turn: it is written down by now that they were told
    daemon.lose()
    daemon.again()
    assert daemon.state("s") == "stopping"
    (bench.out / "go").touch()
    daemon.wait_state("s", "stopped")
    assert bench.told() == 1
    assert (bench.out / "ended").exists()
    assert not any(map(alive, both))


def test_others_whose_main_process_has_ended_meanwhile_are_told_by_the_next_spawnd(bench: Bench) -> None:
    daemon = bench.run(PATIENT, "stop_timeout = false")
    both = bench.both()
    if not bench.has_cgroup:
        wait_until(lambda: dated(daemon) > max(map(started, both)), "a state that was true when both were there")
    assert daemon.ctl("stop", "--no-wait", "s").returncode == 0
    wait_until((bench.out / "main").exists, "TERM to the main process")
    daemon.lose()
    (bench.out / "leave").touch()
    wait_until(lambda: not alive(bench.main), "the end of the main process")
    assert bench.told() == 0
    daemon.again()
    bench.wait_told()
    assert daemon.state("s") == "stopping"
    (bench.out / "go").touch()
    daemon.wait_state("s", "stopped")
    assert (bench.out / "ended").exists()
    assert not any(map(alive, both))
