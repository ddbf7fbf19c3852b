"""Names for what can fail: an OSError inside `with step(...)` leaves it as a StepError."""

from __future__ import annotations

import os
from types import TracebackType

from supervisor.errors import StepError


class step:
    """`with step("open", path):` is a step of opening a descriptor or of starting a service."""

    __slots__ = ("_name", "_path")

    def __init__(self, name: str, path: str = "") -> None:
        self._name = name
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise failed(self._name, self._path, error.errno or 0, error.strerror or str(error)) from error


def failed(name: str, path: str, number: int, cause: str = "") -> StepError:
    """The error of a step; `cause` is the kernel's text for `number` where none is given."""
    return StepError(name, path, number, cause or os.strerror(number))
