from __future__ import annotations

import difflib
from collections.abc import Sequence

import pytest

from supervisor.control.errors import InvalidParameter, NoSuchService
from supervisor.control.orders import MAX_PATTERNS, find, resolve
from supervisor.definitions.problems import MOST
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
    assert raised.value.parameters["name"] == name


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("DB", "db"),
        ("wb-a", "web-a"),
        ("lgo", "log"),
        ("web_b", "web-b"),
        ("", None),
        ("nothing", None),
        ("wb-*", None),
        ("x" * 1000, None),
        ("[", None),
    ],
)
def test_the_name_that_was_probably_meant(name: str, suggestion: str | None) -> None:
    for look in (lambda: resolve(["db", name, "x"], UNITS), lambda: find(name, UNITS)):
        with pytest.raises(NoSuchService) as raised:
            look()
        assert raised.value.parameters == {"name": name, "suggestion": suggestion}


def test_thousands_of_names_are_not_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison of two long names takes 0.1 ms, and spawnd does nothing else meanwhile."""
    compared: list[int] = []
    matches = difflib.get_close_matches

    def watched(word: str, possibilities: Sequence[str], n: int, cutoff: float) -> list[str]:
        compared.append(len(list(possibilities)))
        return matches(word, possibilities, n, cutoff)

    monkeypatch.setattr(difflib, "get_close_matches", watched)
    many = {name: FakeUnit(Service(name), 0.0) for name in (*(f"{'x' * 90}{n}" for n in range(5_000)), "web", "y" * 91)}
    for name, suggestion in (("wbe", "web"), ("y" * 92, "y" * 91)):
        with pytest.raises(NoSuchService) as raised:
            find(name, many)
        assert raised.value.parameters["suggestion"] == suggestion
    assert compared == [MOST, MOST]


def test_all_of_nothing_is_nothing() -> None:
    assert resolve(["all"], {}) == []


def test_too_many_patterns() -> None:
    with pytest.raises(InvalidParameter):
        resolve(["*"] * (MAX_PATTERNS + 1), UNITS)
    assert resolve(["db"] * 10_000, UNITS) == ["db"]
