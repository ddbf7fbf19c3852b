from __future__ import annotations

import signal

import pytest

from supervisor.definitions import scalars
from supervisor.definitions.problems import InvalidValue

GOOD: list[tuple[object, int]] = [
    ("TERM", 15), ("SIGTERM", 15), ("sigterm", 15), (15, 15), ("15", 15), ("RTMIN", 34), ("SIGRTMIN+1", 35),
    ("RTMIN+30", 64), ("RTMAX", 64), ("RTMAX-30", 34), (64, 64), (34, 34), ("CLD", 17),
]  # fmt: skip
BAD = ["", "TREM", 0, 32, 33, 65, -1, 1.5, True, None, [], "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMIN+", "RTMIN1", "٣"]


@pytest.mark.parametrize(("value", "number"), GOOD)
def test_good(value: object, number: int) -> None:
    assert scalars.signal_number(value) == number


@pytest.mark.parametrize("value", BAD)
def test_bad(value: object) -> None:
    with pytest.raises(InvalidValue):
        scalars.signal_number(value)


def test_every_name_of_the_host() -> None:
    for item in signal.Signals:
        assert scalars.signal_number(item.name) == int(item)


def test_real_time_is_counted_as_kill_does() -> None:
    assert scalars.real_time_signal("RTMIN+1") == 35
    with pytest.raises(InvalidValue, match="not a real-time signal"):
        scalars.real_time_signal("USR1")
