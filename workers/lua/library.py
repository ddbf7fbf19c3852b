"""What a library for scripts is made of, and what it may use of the host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from workers.lua.state import Functions

Log = Callable[[int, str], None]  # a level of `logging`, and the text


@dataclass(frozen=True, slots=True)
class Context:
    """What the host lends to its libraries."""

    loop: asyncio.AbstractEventLoop
    log: Log
    call_back: Callable[[str, int], asyncio.Future[bool]]  # call what was kept with that number; a name for the log


class Library(Protocol):
    """`lua/NAME.lua` is called with (kernel, python): `functions` and `waiting` are what stands behind it.

    A function in `functions` answers at once.  One in `waiting` may return a coroutine object
    or a future instead, whose result the script's coroutine waits for.  See `state` for what they take,
    return and raise.
    """

    @property
    def name(self) -> str: ...

    @property
    def functions(self) -> Functions: ...

    @property
    def waiting(self) -> Functions: ...

    def close(self) -> None:
        """Give back everything; nothing is called after that."""
