"""Random choices that are drawn as a whole: drawn one after the other, they take hypothesis longer than the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices:
    """Choices that bytes stand for, one each.  Behind the end each choice is the first possible one."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def below(self, number: int) -> int:
        """Return a number below another, which is 256 at most."""
        return next(self._data, 0) % number

    def one(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def some(self, values: Sequence[T]) -> list[T]:
        """Return any of the values, in their order."""
        return [value for value in values if self.below(2)]

    def flag(self) -> bool:
        return self.below(2) == 1


def choices(least: int, most: int) -> st.SearchStrategy[Choices]:
    """Draw so many bytes."""
    return st.binary(min_size=least, max_size=most).map(Choices)
