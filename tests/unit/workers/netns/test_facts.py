"""The record for the next worker, the delay of repairs, and the reports to spawnd."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.notify.service_side import Sender
from tests.unit.waiting import checked_loop, run_until
from workers.netns.record import LONGEST as LONGEST_RECORD
from workers.netns.record import MAX_REPAIRS, Facts, Record, Repair
from workers.netns.worker import BURST, CALM, EVERY, LONGEST, SETTLE, RepairBackoff, Reports


@pytest.fixture
def fd() -> Iterator[int]:
    found = os.memfd_create("record")
    yield found
    os.close(found)


def test_nothing_is_known_at_first(fd: int) -> None:
    assert Record(fd).facts == Facts()


def test_facts_survive(fd: int) -> None:
    facts = Facts({"name": "a", "routes": [{"to": "::/0"}]}, False).with_repair(Repair(1.5, ["link a"], ["link a"]))
    Record(fd).write(facts)
    assert Record(fd).facts == facts
    assert facts.repaired == 1


def test_half_a_line_does_not_count(fd: int) -> None:
    Record(fd).write(Facts({"name": "a"}, True))
    os.pwrite(fd, b'{"options": {"na', os.fstat(fd).st_size)
    assert Record(fd).facts == Facts({"name": "a"}, True)


def test_the_file_begins_anew_before_it_is_too_long(fd: int) -> None:
    record = Record(fd)
    for number in range(300):
        record.write(Facts({"name": "a" * 2000, "number": number}, True))
    assert os.fstat(fd).st_size < LONGEST_RECORD + 4096
    assert Record(fd).facts.options == {"name": "a" * 2000, "number": 299}


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        (b'{"options": null, "is_set_up": true, "repairs": [], "repaired": 3, "new": 1}', Facts(None, True, (), 3)),
        (b'{"other": 1}', Facts()),
        (b"[]", Facts()),
        (b"nonsense", Facts()),
    ],
)
def test_what_another_version_has_written(fd: int, line: bytes, facts: Facts) -> None:
    os.write(fd, line + b"\n")
    assert Record(fd).facts == facts


def test_failures_are_no_repairs_and_the_latest_are_kept() -> None:
    facts = Facts()
    for number in range(MAX_REPAIRS + 9):
        facts = facts.with_repair(Repair(float(number), [], [], "no" if number % 2 else ""))
    assert len(facts.repairs) == MAX_REPAIRS
    assert facts.repairs[-1].time == MAX_REPAIRS + 8
    assert facts.repaired == (MAX_REPAIRS + 10) // 2


def test_the_first_repairs_are_made_at_once() -> None:
    backoff = RepairBackoff()
    for second in range(BURST - 1):
        assert backoff.due(second) == second + SETTLE
        backoff.repaired(second)


def test_who_goes_on_taking_it_away_is_not_fought_all_the_time() -> None:
    backoff, now, waits = RepairBackoff(), 0.0, []
    for _ in range(BURST + 12):
        waits.append(backoff.due(now) - now)
        now = backoff.due(now)
        backoff.repaired(now)
    assert waits == sorted(waits, key=lambda wait: round(wait, 6))
    assert waits[-1] == pytest.approx(LONGEST)


def test_looks_are_not_made_all_the_time() -> None:
    backoff = RepairBackoff()
    backoff.begins(5.0)
    assert backoff.due(5.1) == 5.0 + EVERY
    assert backoff.due(6.0) == 6.0 + SETTLE


def test_after_a_calm_the_next_repair_is_the_first_again() -> None:
    backoff = RepairBackoff()
    for _ in range(BURST + 5):
        backoff.repaired(0.0)
    assert backoff.due(1.0) > 2.0
    assert backoff.due(CALM + 1) == CALM + 1 + SETTLE


def test_what_cannot_be_sent_is_sent_later_and_in_order(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with checked_loop() as loop, closing(Sender(path)) as sender:
        reports = Reports(loop, sender)
        reports.send("READY=1")
        reports.send("STATUS=a", "X=1")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(path)
            receiver.setblocking(False)
            found: list[bytes] = []
            run_until(loop, lambda: _take(receiver, found) == 2)
    assert found == [b"READY=1", b"STATUS=a\nX=1"]


def _take(receiver: socket.socket, found: list[bytes]) -> int:
    try:
        found.append(receiver.recv(100))
    except BlockingIOError:
        pass
    return len(found)


def test_nobody_to_be_told() -> None:
    with checked_loop() as loop:
        Reports(loop, Sender("")).send("READY=1")
