"""Libraries for Lua beyond its own, by host; their interface, and the part of the host that they may use."""

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

SCRIPT = "script"  # the host of the reaper's script
FUNCTION = "function"  # the host of a module's function

# Each is a module of this package and a class in it, which is loaded only when used.
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
    # call the function kept under that number; the name is for the log
    call_back: Callable[[str, int], asyncio.Future[bool]]


class Library(Protocol):
    """The Python part of a library. `lua/NAME.lua` gets `functions` and `waiting`, with the kernel.

    A function in `functions` answers at once. A function in `waiting` may return a coroutine object or a future
    instead, and the script's coroutine waits for its result. See `state` for their arguments, results and exceptions.
    """

    @property
    def name(self) -> str: ...

    @property
    def functions(self) -> Functions: ...

    @property
    def waiting(self) -> Functions: ...

    def close(self) -> None:
        """Release everything; no function is called after that."""


def make_libraries(host: str, *arguments: object) -> list[Library]:
    """Make one of each library of a host; a library may use what an earlier one has added to the kernel.

    The libraries of SCRIPT take a `Context`.
    """
    return [getattr(import_module(f"workers.lua.{module}"), name)(*arguments) for module, name in LIBRARIES[host]]
