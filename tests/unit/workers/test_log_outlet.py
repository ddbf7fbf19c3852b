"""The fate of a line that the log does not take."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.unit.loop.clock import Clock
from workers.log.outlet import PATIENCE, Outlet


class Handler:
    """A log that takes lines, has no room, or is broken."""

    def __init__(self) -> None:
        self.takes = self.has_much_room = True
        self.is_full = False
        self.lines: list[str] = []
        self.lost = 0

    def offer_some(self, level: int, lines: Sequence[str]) -> int:
        if not self.takes:
            return 0
        self.lines.append(lines[0])
        return 1

    def lose(self, lines: int = 1) -> None:
        self.lost += lines

    def fill(self) -> None:
        self.takes, self.is_full, self.has_much_room = False, True, False


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outlet(handler: Handler, clock: Clock) -> Outlet:
    return Outlet(handler, clock)


def test_a_line_without_room_waits_until_nobody_has_read_for_a_while(
    outlet: Outlet, handler: Handler, clock: Clock
) -> None:
    handler.fill()
    assert not outlet.offer(["a"])
    clock.now += PATIENCE - 0.1
    assert not outlet.offer(["a"])
    assert handler.lost == 0
    clock.now += 0.2
    assert outlet.offer(["a"])
    assert outlet.offer(["b"])
    assert (handler.lines, handler.lost) == ([], 2)


def test_a_reader_who_reads_is_waited_for_anew(outlet: Outlet, handler: Handler, clock: Clock) -> None:
    for _ in range(10):
        handler.fill()
        assert not outlet.offer(["a"])
        clock.now += PATIENCE / 2
        handler.takes = True
        assert outlet.offer(["a"])
    assert handler.lost == 0


def test_a_log_that_cannot_be_written_is_not_waited_for(outlet: Outlet, handler: Handler) -> None:
    handler.takes = False
    assert outlet.offer(["a"])
    assert handler.lost == 1


def test_a_flood_leaves_room_to_others(outlet: Outlet, handler: Handler) -> None:
    handler.has_much_room = False
    assert not outlet.offer_from_flood(["flood"])
    assert outlet.offer(["quiet"])
    assert handler.lines == ["quiet"]


def test_a_flood_takes_what_room_there_is_where_nobody_else_makes_use_of_it(
    outlet: Outlet, handler: Handler, clock: Clock
) -> None:
    handler.has_much_room = False
    assert not outlet.offer_from_flood(["flood"])
    clock.now += PATIENCE
    assert outlet.offer_from_flood(["flood"])
    assert (handler.lines, handler.lost) == (["flood"], 0)
    assert outlet.offer_from_flood(["more"]), "it has waited once"
    handler.fill()
    assert not outlet.offer_from_flood(["still more"])
    clock.now += PATIENCE
    assert outlet.offer_from_flood(["still more"])
    assert (handler.lines, handler.lost) == (["flood", "more"], 1)


def test_a_flood_waits_anew_once_somebody_has_read(outlet: Outlet, handler: Handler, clock: Clock) -> None:
    for _ in range(2):
        handler.has_much_room = False
        assert not outlet.offer_from_flood(["flood"])
        clock.now += PATIENCE
        handler.has_much_room = True
        assert outlet.offer_from_flood(["flood"])
