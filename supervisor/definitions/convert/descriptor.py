"""Entries of a descriptor table: the calls of the constructors `file`, `udp`, … and their options."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert.access import group_id, interface, owner_id, silence
from supervisor.definitions.convert.plain import PATH_MAX, boolean, file_name, integer, permissions, text, usable
from supervisor.definitions.convert.tables import items
from supervisor.definitions.problems import InvalidValue, Path, did_you_mean, place
from supervisor.definitions.scalars import size
from supervisor.definitions.service import Descriptor
from supervisor.definitions.values import describe, is_integer, table, tag
from supervisor.printable import count

ACCESS = ("r", "r+", "w", "w+", "a", "a+")
SUN_PATH = 107  # unix(7): 108 bytes with a NUL
MAX_NAME = 255
MAX_ENTRIES = 4096

_NOT_IN_NAMES = re.compile(r"[:\x00-\x1f\x7f]")
_Parts = dict[str, Any]

MAX_BUFFER = 2**30  # the kernel doubles it and stores it in an int
_INTERNET = frozenset({"udp", "tcp"})
_BOUND = frozenset({"stream", "dgram", "seqpacket"})
_CONNECTED = frozenset({f"connected {kind}" for kind in _BOUND})
_SOCKETS = _INTERNET | _BOUND | _CONNECTED


def _is_made(value: object) -> bool:
    """Whether the value was made by a descriptor constructor."""
    return tag(value) in _KINDS


def entries(value: object, checking: Checking) -> tuple[Descriptor, ...]:
    """Return the descriptor table: numbers from 3 up, in this order."""
    found = []
    for index, item in enumerate(items(value, "fd", _is_made), 1):
        try:
            if index > MAX_ENTRIES:
                raise InvalidValue(f"a table has at most {MAX_ENTRIES} descriptors")
            found.append(descriptor(item, checking, "fd", index))
        except InvalidValue as error:
            checking.invalid(error, "fd", index)
    return tuple(found)


def standard(slot: str) -> Callable[[object, Checking], Descriptor]:
    """Return a converter for `stdin`, `stdout` or `stderr`."""

    def convert(value: object, checking: Checking) -> Descriptor:
        found = descriptor(value, checking, slot)
        reads = found.access.startswith("r") or "+" in found.access
        if slot == "stdin" and found.access and not reads:
            raise _at(value, f"opened with {found.access!r} it cannot be read")
        if slot != "stdin" and found.access == "r":
            raise _at(value, f"opened with 'r' it cannot be written, write file({describe(found.path)}, \"a\")")
        return found

    return convert


def descriptor(value: object, checking: Checking, *path: str | int) -> Descriptor:
    """Return the descriptor of the constructor call at `path`. Raises InvalidValue."""
    kind = tag(value)
    if kind not in _KINDS:
        raise InvalidValue(f"has to be made by a constructor, {_example(value, path[0])}, not {describe(value)}")
    assert isinstance(value, dict)
    if kind == "log" and path[0] not in ("stdout", "stderr"):
        raise _at(value, "log() is for stdout and stderr alone")
    arguments = list(value["args"])
    given = table(arguments[-1]) if arguments else None
    if given is not None:
        arguments.pop()
    try:
        parts = _KINDS[kind](kind, arguments, checking)
        options(kind, parts, given or {}, checking, value["line"], path)
    except InvalidValue as error:
        raise InvalidValue(f"{kind}: {error.message}", *error.path, line=error.line or value["line"]) from None
    if path[0] != "fd":
        parts["name"] = str(path[0])
    return Descriptor(kind, **parts)  # type: ignore[arg-type]


def _example(value: object, slot: str | int) -> str:
    """Return the notation of the value that was probably meant."""
    out = slot in ("stdout", "stderr")
    if describe(value) == "a function":
        return 'which is called with its arguments, like log() or tcp("*", 80)'
    if isinstance(value, str) and value.startswith("/"):
        return f'like file({describe(value)}, "{"a" if out else "r"}")'
    return 'like log() or file("/var/log/web", "a")' if out else 'like udp("0.0.0.0", 69) or file("/a", "r")'


def _at(value: object, message: str) -> InvalidValue:
    assert isinstance(value, dict)
    return InvalidValue(message, line=value["line"])


def _file(kind: str, arguments: list[Any], checking: Checking) -> _Parts:
    path, access = _arguments(arguments, "file(path, mode)", 1, 2)
    name = text(path, checking)
    if not name.startswith("/"):
        raise InvalidValue(f"{describe(path)} is not an absolute path")
    if len(name.encode()) >= PATH_MAX:
        raise InvalidValue(f"{describe(path)} is longer than the {PATH_MAX - 1} bytes that a path can have")
    mode = "r" if access is None else access.replace("b", "") if isinstance(access, str) else ""
    if mode not in ACCESS:
        raise InvalidValue(f"{describe(access)} is not a mode, they are {', '.join(ACCESS)}")
    return {"path": name, "access": mode, "name": _last(name)}


def _internet(kind: str, arguments: list[Any], checking: Checking) -> _Parts:
    host, port = _arguments(arguments, f"{kind}(host, port)", 2, 2)
    if not isinstance(host, str):
        raise InvalidValue(f'the host has to be text, like "127.0.0.1", "::1" or "*", not {describe(host)}')
    usable(host)
    written = _port(port)
    network = checking.databases.network
    here = place(checking.file, checking.line)
    parts: _Parts = {"host": network.address(host, here), "port": network.port(written, kind)}
    if host == "*" and ":" in parts["host"]:
        parts["v6only"] = False
    return parts | {"name": _name(written)}


def _port(value: object) -> str:
    if tag(value) == "port":
        assert isinstance(value, dict)
        value = value["args"][0]
    if is_integer(value):
        return str(value)
    if isinstance(value, str) and value:
        return usable(value)
    raise InvalidValue(f"the port has to be a number or a name of the services database, not {describe(value)}")


def _unix(kind: str, arguments: list[Any], checking: Checking) -> _Parts:
    path, connect = _arguments(arguments, f"{kind}(path) or {kind}(path, 'connect')", 1, 2)
    if connect not in (None, "connect"):
        raise InvalidValue(f"{describe(connect)} is not 'connect'" + did_you_mean(connect, ["connect"]))
    name = text(path, checking)
    if not name.startswith(("/", "@")) or name == "@":
        raise InvalidValue(f'{describe(path)} is neither an absolute path nor an abstract name ("@name")')
    if len(name.encode()) > SUN_PATH:
        raise InvalidValue(f"{describe(path)} is longer than the {SUN_PATH} bytes that a socket's address can have")
    return {"path": name, "connect": connect is not None, "name": _last(name.removeprefix("@"))}


def _log(kind: str, arguments: list[Any], checking: Checking) -> _Parts:
    if arguments:
        raise InvalidValue("log() takes no arguments")
    return {}


_KINDS: dict[str, Callable[[str, list[Any], Checking], _Parts]] = {
    "file": _file,
    "udp": _internet,
    "tcp": _internet,
    "stream": _unix,
    "dgram": _unix,
    "seqpacket": _unix,
    "log": _log,
}


def _arguments(given: list[Any], usage: str, least: int, most: int) -> list[Any]:
    """Return two arguments, None for omitted ones. Raises InvalidValue."""
    while given and given[-1] is None:
        given.pop()
    if not least <= len(given) <= most:
        arguments = count(len(given), "argument")
        raise InvalidValue(f"it is called as {usage}, with a table of options after that, not with {arguments}")
    return given + [None] * (2 - len(given))


def _last(path: str) -> str:
    return _name(path.rstrip("/").rpartition("/")[2])


def _name(text: str) -> str:
    """Return a name that fits into LISTEN_FDNAMES."""
    return _NOT_IN_NAMES.sub("_", text)[:MAX_NAME]


@dataclass(frozen=True, slots=True)
class Option:
    """An option: the kinds of descriptor that can have it, and its converter."""

    where: frozenset[str]
    convert: Callable[[object, Checking], Any]


def _buffer(value: object, checking: Checking) -> int:
    number = size(value)
    if not 0 < number <= MAX_BUFFER:
        raise InvalidValue(f"{describe(value)} is out of range, from 1 to 1g")
    return number


def _given_name(value: object, checking: Checking) -> str:
    name = text(value, checking)
    if not 0 < len(name.encode()) <= MAX_NAME or not name.isprintable() or ":" in name:
        raise InvalidValue(f"{describe(value)} is not a name: 1 to {MAX_NAME} bytes, no ':' and no control characters")
    return name


def _netns(value: object, checking: Checking) -> str:
    return "" if value is False else file_name(value, checking)  # read like `namespace`


OPTIONS: dict[str, Option] = {
    "name": Option(_SOCKETS | {"file"}, _given_name),
    "backlog": Option(frozenset({"tcp", "stream", "seqpacket"}), integer(1, 2**31 - 1)),
    "mode": Option(_BOUND | {"file"}, permissions),
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
    "interface": Option(_INTERNET, interface),
    "defer_accept": Option(frozenset({"tcp"}), silence),
}


def options(kind: str, parts: dict[str, Any], given: dict[str, Any], checking: Checking, line: int, path: Path) -> None:
    """Add the options to the parts of a descriptor, and report bad options."""
    role = f"connected {kind}" if parts.get("connect") else kind
    for name, value in sorted(given.items()):
        try:
            option = OPTIONS.get(name)
            if option is None:
                raise InvalidValue("unknown option" + did_you_mean(name, OPTIONS))
            if role not in option.where:
                raise InvalidValue(f"this option is for {_listed(option.where)}, not for {role}")
            _check_place(name, parts, value)
            parts[name] = option.convert(value, checking)
        except InvalidValue as error:
            checking.invalid(InvalidValue(error.message, line=line), *path, name)


def _check_place(name: str, parts: dict[str, Any], value: object) -> None:
    """Check the options that need more than the right kind. Raises InvalidValue."""
    path = parts.get("path", "")
    if name in ("mode", "owner", "group"):
        if path.startswith("@"):
            raise InvalidValue("an abstract socket is not a file, so it has no owner and no permissions")
        if parts.get("access", "").startswith("r"):
            raise InvalidValue("for a file that is created, not for one opened with 'r'")
    if name == "netns" and path.startswith("/"):
        raise InvalidValue("a socket with a path is the same in every network namespace")
    if name == "v6only" and ":" not in parts.get("host", ""):
        raise InvalidValue("for an IPv6 address")


def _listed(kinds: frozenset[str]) -> str:
    return ", ".join(sorted(kind for kind in kinds if kind.removeprefix("connected ") == kind))
