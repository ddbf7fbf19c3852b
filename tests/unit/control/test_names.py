from __future__ import annotations

import pytest

from supervisor.control.errors import InvalidParameter, NoSuchService
from supervisor.control.names import MAX_PATTERNS, resolve
from supervisor.definitions.service import Service
from tests.unit.control.fake_core import FakeUnit

UNITS = {name: FakeUnit(Service(name), 0.0, internal=name == "log") for name in ("web-b", "web-a", "db", "log")}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["db"], ["db"]),
        (["db", "web-b", "db"], ["db", "web-b"]),
        (["web-*"], ["web-b", "web-a"]),
        (["db", "*"], ["db", "web-b", "web-a"]),
        (["all"], ["web-b", "web-a", "db"]),
        (["log"], ["log"]),
        (["all", "log"], ["web-b", "web-a", "db", "log"]),
        (["web-[!b]"], ["web-a"]),
        (["d?"], ["db"]),
        ([], []),
    ],
)
def test_what_names_mean(wanted: list[str], found: list[str]) -> None:
    assert resolve(wanted, UNITS) == found


@pytest.mark.parametrize("name", ["", "DB", "web", "l*", "x*", "[", "web-[", "x" * 1000, "*" * 1000])
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises(NoSuchService) as raised:
        resolve(["db", name], UNITS)
    assert raised.value.parameters == {"name": name}


def test_all_of_nothing_is_nothing() -> None:
    assert resolve(["all"], {}) == []


def test_too_many_patterns() -> None:
    with pytest.raises(InvalidParameter):
        resolve(["*"] * (MAX_PATTERNS + 1), UNITS)
    assert resolve(["db"] * 10_000, UNITS) == ["db"]
