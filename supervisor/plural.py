"""Numbers and lists of things in messages."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 5  # of a list, before the rest is a number


def count(number: int, noun: str) -> str:
    """`1 service`, `2 services`, `0 services`: of nouns with a plural in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; of many the first and how many others there are."""
    shown = words if len(words) <= SHOWN + 1 else words[:SHOWN]
    if len(shown) < len(words):
        return f"{', '.join(shown)} and {len(words) - len(shown)} others"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
