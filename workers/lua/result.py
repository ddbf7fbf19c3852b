"""How a function of Python tells Lua that it has failed, where the number of the error matters, too."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from workers.lua.state import Value


def failure(error: OSError) -> tuple[None, str, int]:
    """`nil, message, errno`, as Lua's own `io` has it: the message names the file, where it is about one."""
    text = error.strerror or str(error)
    name = error.filename
    if name is None:
        return None, text, error.errno or 0
    return None, f"{os.fsdecode(name) if isinstance(name, (str, bytes)) else name}: {text}", error.errno or 0


def with_errno(functions: Mapping[str, Callable[..., Value]]) -> dict[str, Callable[..., Value]]:
    """The functions, each of which returns `failure` instead of raising an OSError, and true for nothing."""
    return {name: _with_errno(function) for name, function in functions.items()}


def _with_errno(function: Callable[..., Value]) -> Callable[..., Value]:
    def call(*args: object) -> Value:
        try:
            result = function(*args)
        except OSError as error:
            return failure(error)
        return True if result is None else result

    return call
