"""The parameters of a call, taken one by one and checked."""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.varlink.messages import InvalidParameter


class Parameters:
    """Each method raises InvalidParameter where the value has another type or is out of range.

    A null counts as absent.  `end` is to follow the last one.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = {key: value for key, value in values.items() if value is not None}

    def string(self, key: str, default: str | None = None) -> str:
        """A parameter that may be left out where there is a default."""
        value = self._values.pop(key, default)
        if not isinstance(value, str):
            raise InvalidParameter(key)
        return value

    def strings(self, key: str, default: list[str] | None = None) -> list[str]:
        """A list of strings; one that may be left out where there is a default."""
        value = self._values.pop(key, default)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidParameter(key)
        return value

    def boolean(self, key: str) -> bool:
        """False where it is absent."""
        value = self._values.pop(key, False)
        if not isinstance(value, bool):
            raise InvalidParameter(key)
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self._values.pop(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidParameter(key)
        return value

    def number(self, key: str, low: float, high: float, default: float) -> float:
        """Any number, with a fraction or not."""
        value = self._values.pop(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidParameter(key)
        return float(value)

    def table(self, key: str) -> dict[str, object]:
        """An object of whatever content, empty where it is absent."""
        value = self._values.pop(key, {})
        if not isinstance(value, dict):
            raise InvalidParameter(key)
        return value

    def end(self) -> None:
        """There are no others: who misspells one is told so."""
        for key in self._values:
            raise InvalidParameter(key)
