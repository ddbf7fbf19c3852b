"""Libraries that Lua sees besides its own, by host; their interface, and the part of the host that they may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from workers.lua.state import Functions

if TYPE_CHECKING:
    import asyncio

    from workers.lua.address import Resolver

Log = Callable[[int, str], None]  # a level of `logging`, and the text

SCRIPT = "script"  # the reaper's
FUNCTION = "function"  # of a module

# Each is a module of this package and a class in it, which is loaded only where it is used.
LIBRARIES: Mapping[str, Sequence[tuple[str, str]]] = {
    SCRIPT: (
        ("cgroup", "Cgroups"),
        ("socket", "ControlResolve"),
        ("socket", "Sockets"),
        ("socket", "ControlClients"),
        ("sodium", "Sodium"),
        ("pg", "PgArray"),
        ("pg", "Pg"),
    ),
    FUNCTION: (
        ("fsys", "Fsys"),
        ("net", "Net"),
        ("proc", "Proc"),
        ("unix", "Unix"),
        ("syslog", "Syslog"),
    ),
}


@dataclass(frozen=True, slots=True)
class Context:
    """The part of the host that its libraries may use."""

    loop: asyncio.AbstractEventLoop
    resolver: Resolver
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


def make_libraries(host: str, *arguments: object) -> list[Library]:
    """Make one of each library of a host; a library may use what one before it has added to the kernel.

    Those of SCRIPT take a `Context`.
    """
    return [getattr(import_module(f"workers.lua.{module}"), name)(*arguments) for module, name in LIBRARIES[host]]
