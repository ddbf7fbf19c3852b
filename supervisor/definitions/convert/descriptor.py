"""Entries of a service's descriptor table: what the constructors `file`, `udp`, … were called with."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from supervisor.definitions.convert.descriptor_options import options
from supervisor.definitions.convert.sequence import items
from supervisor.definitions.convert.text import PATH_MAX, text, usable
from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad, place
from supervisor.definitions.scope import Scope
from supervisor.definitions.service import Descriptor
from supervisor.definitions.values import describe, is_integer, table, tag

ACCESS = ("r", "r+", "w", "w+", "a", "a+")
SUN_PATH = 107  # unix(7): 108 bytes, one of them a NUL
MAX_NAME = 255
MAX_ENTRIES = 4096

_NOT_IN_NAMES = re.compile(r"[:\x00-\x1f\x7f]")
_Parts = dict[str, Any]


def entries(value: object, scope: Scope) -> tuple[Descriptor, ...]:
    """The descriptor table: numbers from 3 up, in this order."""
    found = []
    for index, item in enumerate(items(value, "fd"), 1):
        try:
            if index > MAX_ENTRIES:
                raise Bad(f"a table has at most {MAX_ENTRIES} descriptors")
            found.append(descriptor(item, scope, "fd", index))
        except Bad as error:
            scope.bad(error, "fd", index)
    return tuple(found)


def standard(slot: str) -> Callable[[object, Scope], Descriptor]:
    """A converter for `stdin`, `stdout` or `stderr`."""

    def convert(value: object, scope: Scope) -> Descriptor:
        found = descriptor(value, scope, slot)
        reads = found.access.startswith("r") or "+" in found.access
        if slot == "stdin" and found.access and not reads:
            raise _at(value, f"opened with {found.access!r} it cannot be read")
        if slot != "stdin" and found.access == "r":
            raise _at(value, "opened with 'r' it cannot be written")
        return found

    return convert


def descriptor(value: object, scope: Scope, *path: str | int) -> Descriptor:
    """What the constructor call at `path` describes.  Raises Bad."""
    kind = tag(value)
    if kind not in _KINDS:
        raise Bad(f'has to be made by a constructor, like udp("0.0.0.0", 69) or file("/a", "r"), not {describe(value)}')
    assert isinstance(value, dict)
    if kind == "log" and path[0] not in ("stdout", "stderr"):
        raise _at(value, "log() is for stdout and stderr alone")
    arguments = list(value["args"])
    given = table(arguments[-1]) if arguments else None
    if given is not None:
        arguments.pop()
    try:
        parts = _KINDS[kind](kind, arguments, scope)
        options(kind, parts, given or {}, scope, value["line"], path)
    except Bad as error:
        raise Bad(f"{kind}: {error.message}", *error.path, line=error.line or value["line"]) from None
    if path[0] != "fd":
        parts["name"] = str(path[0])
    return Descriptor(kind, **parts)  # type: ignore[arg-type]


def _at(value: object, message: str) -> Bad:
    assert isinstance(value, dict)
    return Bad(message, line=value["line"])


def _file(kind: str, arguments: list[Any], scope: Scope) -> _Parts:
    path, access = _arguments(arguments, "file(path, mode)", 1, 2)
    name = text(path, scope)
    if not name.startswith("/"):
        raise Bad(f"{describe(path)} is not an absolute path")
    if len(name.encode()) >= PATH_MAX:
        raise Bad(f"{describe(path)} is longer than the {PATH_MAX - 1} bytes that a path can have")
    mode = "r" if access is None else access.replace("b", "") if isinstance(access, str) else ""
    if mode not in ACCESS:
        raise Bad(f"{describe(access)} is not a mode, they are {', '.join(ACCESS)}")
    return {"path": name, "access": mode, "name": _last(name)}


def _internet(kind: str, arguments: list[Any], scope: Scope) -> _Parts:
    host, port = _arguments(arguments, f"{kind}(host, port)", 2, 2)
    if not isinstance(host, str):
        raise Bad(f'the host has to be text, like "127.0.0.1", "::1" or "*", not {describe(host)}')
    usable(host)
    written = _port(port)
    network = scope.host.network
    parts: _Parts = {"host": network.address(host, place(scope.file, scope.line)), "port": network.port(written, kind)}
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
    raise Bad(f"the port has to be a number or a name of the services database, not {describe(value)}")


def _unix(kind: str, arguments: list[Any], scope: Scope) -> _Parts:
    path, connect = _arguments(arguments, f"{kind}(path) or {kind}(path, 'connect')", 1, 2)
    if connect not in (None, "connect"):
        raise Bad(f"{describe(connect)} is not 'connect'" + hint(connect, ["connect"]))
    name = text(path, scope)
    if not name.startswith(("/", "@")) or name == "@":
        raise Bad(f'{describe(path)} is neither an absolute path nor an abstract name ("@name")')
    if len(name.encode()) > SUN_PATH:
        raise Bad(f"{describe(path)} is longer than the {SUN_PATH} bytes that a socket's address can have")
    return {"path": name, "connect": connect is not None, "name": _last(name.removeprefix("@"))}


def _log(kind: str, arguments: list[Any], scope: Scope) -> _Parts:
    if arguments:
        raise Bad("log() takes no arguments")
    return {}


_KINDS: dict[str, Callable[[str, list[Any], Scope], _Parts]] = {
    "file": _file,
    "udp": _internet,
    "tcp": _internet,
    "stream": _unix,
    "dgram": _unix,
    "seqpacket": _unix,
    "log": _log,
}


def _arguments(given: list[Any], usage: str, least: int, most: int) -> list[Any]:
    """Two arguments, None for what is left out.  Raises Bad."""
    while given and given[-1] is None:
        given.pop()
    if not least <= len(given) <= most:
        raise Bad(f"it is called as {usage}, with a table of options after that, not with {len(given)} arguments")
    return given + [None] * (2 - len(given))


def _last(path: str) -> str:
    return _name(path.rstrip("/").rpartition("/")[2])


def _name(text: str) -> str:
    """A name as LISTEN_FDNAMES can hold it."""
    return _NOT_IN_NAMES.sub("_", text)[:MAX_NAME]
