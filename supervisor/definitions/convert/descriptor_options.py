"""Options of the descriptor constructors, each for the kinds of descriptor that it makes sense for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from supervisor.definitions import permissions
from supervisor.definitions.convert.account import group_id, owner_id
from supervisor.definitions.convert.number import boolean, integer
from supervisor.definitions.convert.text import file_name, text
from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad, Path
from supervisor.definitions.scope import Scope
from supervisor.definitions.units import size
from supervisor.definitions.values import describe

MAX_NAME = 255
MAX_BUFFER = 2**30  # the kernel doubles it and counts in an int

_INTERNET = frozenset({"udp", "tcp"})
_BOUND = frozenset({"stream", "dgram", "seqpacket"})
_CONNECTED = frozenset({f"connected {kind}" for kind in _BOUND})
_SOCKETS = _INTERNET | _BOUND | _CONNECTED


@dataclass(frozen=True, slots=True)
class Option:
    """An option: what it is for, and how its value is read."""

    where: frozenset[str]
    convert: Callable[[object, Scope], Any]


def _mode(value: object, scope: Scope) -> int:
    return permissions.mode(value)


def _buffer(value: object, scope: Scope) -> int:
    number = size(value)
    if not 0 < number <= MAX_BUFFER:
        raise Bad(f"{describe(value)} is out of range, from 1 to 1g")
    return number


def _name(value: object, scope: Scope) -> str:
    name = text(value, scope)
    if not 0 < len(name.encode()) <= MAX_NAME or not name.isprintable() or ":" in name:
        raise Bad(f"{describe(value)} is not a name: 1 to {MAX_NAME} bytes, no ':' and no control characters")
    return name


def _netns(value: object, scope: Scope) -> str:
    return "" if value is False else file_name(value, scope)  # as `namespace` reads it


OPTIONS: dict[str, Option] = {
    "name": Option(_SOCKETS | {"file"}, _name),
    "backlog": Option(frozenset({"tcp", "stream", "seqpacket"}), integer(1, 2**31 - 1)),
    "mode": Option(_BOUND | {"file"}, _mode),
    "owner": Option(_BOUND | {"file"}, owner_id),
    "group": Option(_BOUND | {"file"}, group_id),
    "reuseport": Option(_INTERNET, boolean),
    "freebind": Option(_INTERNET, boolean),
    "transparent": Option(_INTERNET, boolean),
    "v6only": Option(_INTERNET, boolean),
    "nodelay": Option(frozenset({"tcp"}), boolean),
    "passcred": Option(_BOUND | _CONNECTED, boolean),
    "netns": Option(_SOCKETS, _netns),
    "mark": Option(_INTERNET, integer(0, 2**32 - 1)),
    "sndbuf": Option(_SOCKETS, _buffer),
    "rcvbuf": Option(_SOCKETS, _buffer),
}


def options(kind: str, parts: dict[str, Any], given: dict[str, Any], scope: Scope, line: int, path: Path) -> None:
    """Add the options to the parts of a descriptor; bad ones are reported."""
    role = f"connected {kind}" if parts.get("connect") else kind
    for name, value in sorted(given.items()):
        try:
            option = OPTIONS.get(name)
            if option is None:
                raise Bad("unknown option" + hint(name, OPTIONS))
            if role not in option.where:
                raise Bad(f"this option is for {_listed(option.where)}, not for {role}")
            _check_place(name, parts, value)
            parts[name] = option.convert(value, scope)
        except Bad as error:
            scope.bad(Bad(error.message, line=line), *path, name)


def _check_place(name: str, parts: dict[str, Any], value: object) -> None:
    """Some options need more than the right kind.  Raises Bad."""
    path = parts.get("path", "")
    if name in ("mode", "owner", "group"):
        if path.startswith("@"):
            raise Bad("an abstract socket is no file, it has no owner and no permissions")
        if parts.get("access", "").startswith("r"):
            raise Bad("for a file that is created, not for one opened with 'r'")
    if name == "netns" and path.startswith("/"):
        raise Bad("a socket with a path is the same in every network namespace")
    if name == "v6only" and ":" not in parts.get("host", ""):
        raise Bad("for an IPv6 address")


def _listed(kinds: frozenset[str]) -> str:
    return ", ".join(sorted(kind for kind in kinds if kind.removeprefix("connected ") == kind))
