"""Reports to systemd, heard on a real socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.loop.loop import Loop
from supervisor.systemd import reports as module
from supervisor.systemd.reports import Systemd
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import run_until, turn


class Ear:
    """The socket on which systemd listens."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """The datagrams since the last time, as lines."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(tmp_path / "notify")
    yield ear
    ear.close()


@pytest.fixture
def systemd(loop: Loop, ear: Ear) -> Iterator[Systemd]:
    systemd = Systemd(loop, ear.address)
    systemd.describe = lambda: "fine"
    yield systemd
    systemd.close()


def test_ready_with_a_status(systemd: Systemd, ear: Ear) -> None:
    systemd.ready()
    assert ear.heard() == [["READY=1", "STATUS=fine"]]


def test_a_reload_is_between_reloading_and_ready(systemd: Systemd, ear: Ear) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.reloading()
    systemd.ready()
    (reloading, ready) = ear.heard()
    assert reloading[0] == "RELOADING=1"
    assert reloading[2:] == ["STATUS=Reloading the definitions"]
    key, value = reloading[1].split("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert ready == ["READY=1", "STATUS=fine"]


def test_the_status_is_told_when_it_has_changed(systemd: Systemd, ear: Ear, loop: Loop) -> None:
    systemd.ready()
    texts = ["one"]
    systemd.describe = lambda: texts[-1]
    began = loop.clock()
    systemd.changed()
    systemd.changed()
    texts.append("two")
    heard = ear.heard()
    run_until(loop, lambda: _more(heard, ear) == 2)
    assert heard == [["READY=1", "STATUS=fine"], ["STATUS=two"]]
    assert loop.clock() - began >= module.STATUS_INTERVAL * 0.9


def test_a_change_after_a_quiet_time_is_told_at_once(systemd: Systemd, ear: Ear, loop: Loop) -> None:
    began = loop.clock()
    systemd.changed()
    turn(loop, 2)
    assert ear.heard() == [["STATUS=fine"]]
    assert loop.clock() - began < module.STATUS_INTERVAL


def test_nothing_new_is_not_told(systemd: Systemd, ear: Ear, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATUS_INTERVAL", 0.0)
    systemd.ready()
    ear.heard()
    systemd.changed()
    turn(loop, 3)
    systemd.describe = lambda: "otherwise"
    systemd.changed()
    systemd.describe = lambda: "fine"
    turn(loop, 3)
    assert ear.heard() == []


def test_with_nothing_to_tell_no_timer_is_left(systemd: Systemd, loop: Loop) -> None:
    systemd.ready()
    systemd.changed()
    run_until(loop, lambda: loop.clock() > 0 and not _timers(loop))


def test_a_stop_asks_for_more_time_as_long_as_it_takes(
    systemd: Systemd, ear: Ear, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXTEND_EVERY", 0.01)
    systemd.stopping()
    heard: list[list[str]] = []
    run_until(loop, lambda: _more(heard, ear) >= 4)
    extension = [f"EXTEND_TIMEOUT_USEC={module.EXTENSION * 1_000_000}"]
    assert heard[0] == ["STOPPING=1", "STATUS=fine"]
    assert heard[1:4] == [extension] * 3


def test_the_watchdog_is_fed_twice_in_its_period(ear: Ear, loop: Loop) -> None:
    began = loop.clock()
    systemd = Systemd(loop, ear.address, watchdog_usec=100_000)
    heard: list[list[str]] = []
    run_until(loop, lambda: _more(heard, ear) >= 5)
    systemd.close()
    assert heard == [["WATCHDOG=1"]] * 5
    assert loop.clock() - began >= 0.2


def test_who_leaves_for_a_while_feeds_it_first(ear: Ear, loop: Loop) -> None:
    systemd = Systemd(loop, ear.address, watchdog_usec=60_000_000)
    systemd.reloading()
    systemd.close()
    assert [lines[0] for lines in ear.heard()] == ["WATCHDOG=1", "RELOADING=1", "WATCHDOG=1"]


def test_a_full_queue_loses_nothing_and_nobody_waits(systemd: Systemd, ear: Ear, loop: Loop) -> None:
    texts = [""]
    systemd.describe = lambda: texts[0]
    sent = 0
    while not systemd._unsent:  # until the kernel takes no more
        texts[0] = f"number {sent}"
        systemd.ready()
        sent += 1
        assert sent < 100_000
    systemd.stopping()
    heard = ear.heard()
    assert len(heard) == sent - 1
    run_until(loop, lambda: _more(heard, ear) >= sent + 2)
    assert [lines[0] for lines in heard] == ["READY=1"] * sent + ["STOPPING=1", "EXTEND_TIMEOUT_USEC=30000000"]
    assert [lines[1] for lines in heard[:sent]] == [f"STATUS=number {number}" for number in range(sent)]


def test_who_has_gone_is_given_up(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_AFTER", 0.001)
    monkeypatch.setattr(module, "RETRIES", 5)
    systemd = Systemd(loop, str(tmp_path / "nobody"))
    systemd.ready()
    assert systemd._unsent
    run_until(loop, lambda: not systemd._unsent)
    assert not _timers(loop)
    # and found again when it listens again
    ear = Ear(tmp_path / "nobody")
    systemd.ready()
    assert ear.heard() == [["READY=1", "STATUS="]]
    ear.close()
    systemd.close()


def test_without_systemd_nothing_happens(loop: Loop) -> None:
    systemd = Systemd(loop)
    for tell in (systemd.ready, systemd.reloading, systemd.stopping, systemd.changed):
        tell()
    assert not systemd._unsent
    assert not [timer for timer in _timers(loop) if timer != module.EXTEND_EVERY]
    systemd.close()


def test_close_leaves_nothing(loop: Loop, ear: Ear) -> None:
    before = open_numbers()
    systemd = Systemd(loop, ear.address, watchdog_usec=1_000_000)
    systemd.stopping()
    systemd.changed()
    ear.heard()
    systemd.close()
    assert open_numbers() == before
    assert not _timers(loop)
    systemd.ready()
    assert ear.heard() == []


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", "own", 30_000_000),
        ("30000000", "", 30_000_000),
        ("30000000", "1", 0),
        ("", "own", 0),
        ("soon", "own", 0),
        ("-5", "own", 0),
        ("٣", "own", 0),
    ],
)
def test_the_environment_is_read_and_taken_away(
    loop: Loop, ear: Ear, monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, expected: int
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", ear.address)
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    systemd = Systemd.from_environment(loop)
    try:
        assert (systemd.address, systemd.watchdog_usec) == (ear.address, expected)
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
        assert ear.heard() == ([["WATCHDOG=1"]] if expected else [])
    finally:
        systemd.close()


def test_another_one_goes_on_where_it_was(loop: Loop, ear: Ear) -> None:
    """As a spawnd does that executes itself anew."""
    first = Systemd(loop, ear.address, watchdog_usec=60_000_000)
    first.reloading()
    address, watchdog_usec = first.address, first.watchdog_usec
    first.close()
    second = Systemd(loop, address, watchdog_usec)
    second.ready()
    second.close()
    assert [lines[0] for lines in ear.heard()] == ["WATCHDOG=1", "RELOADING=1", *["WATCHDOG=1"] * 2, "READY=1"]


def _timers(loop: Loop) -> list[float]:
    """Seconds until each timer that is set."""
    return [round(when - loop.clock()) for when, _, timer in loop._timers if timer.callback is not None]


def _more(heard: list[list[str]], ear: Ear) -> int:
    """How much has been heard by now."""
    heard += ear.heard()
    return len(heard)
