"""The reaper's `options`, which docs/reaper.md explains, and its errors, by whose fault they are."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from supervisor.errors import SpawnError
from supervisor.places import SYSCONFDIR, cgroup2_mounts

SLICE = "/system.slice/system-cm4all.slice"
SCOPES = tuple(f"{SLICE}/{name}-spawn.scope" for name in ("bp", "lukko", "workshop"))
SCRIPT = f"{SYSCONFDIR}/cm4all/spawn/reaper.lua"
DELETE_DELAY = 0.05  # seconds, during which the spawner may read the statistics as well
SPOOL = "/var/lib/spawnd/spool"
SPOOL_MAX = 1 << 30  # bytes, for about three million cgroups

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.A)
_SIZE = re.compile(r"(\d+)\s*([kmgt]?)", re.A | re.I)
_SECONDS_IN = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST_DELAY = 3600.0
SHORTEST_KEEP = 3600.0


class ReaperError(SpawnError):
    """Root of all errors of the reaper."""


class OptionsError(ReaperError):
    """The `options` of the definition are wrong."""


class HostError(ReaperError):
    """The host lacks something that the reaper requires."""


class DatabaseError(ReaperError):
    """The database of the accounting cannot serve a request now."""


class SpoolError(ReaperError):
    """The folder of the spool cannot be used."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options; `script` is None only if the default script is missing, `database` is '' without accounting."""

    scopes: tuple[str, ...] = SCOPES
    script: str | None = None
    script_writes: tuple[str, ...] = ()
    cgroup_root: str = ""
    delete_delay: float = DELETE_DELAY
    database: str = ""
    xattrs: tuple[str, ...] = ()
    keep: float | None = None  # seconds
    spool: str = SPOOL
    spool_max: int = SPOOL_MAX
    host: str = ""


def read(raw: Mapping[str, Any]) -> Options:
    """Convert the options of a definition. Raises OptionsError with all errors, HostError."""
    readers: dict[str, Callable[[Any], object]] = {
        "scopes": _scopes,
        "script": _path,
        "script_writes": _paths,
        "cgroup_root": _path,
        "delete_delay": _delay,
        "database": read_database,
        "xattrs": _names,
        "keep": _keep,
        "spool": _path,
        "spool_max": _size,
        "host": _text,
    }
    assert set(readers) == {field.name for field in fields(Options)}
    values: dict[str, Any] = {}
    wrong = [f"unknown option {name!r}" for name in sorted(set(raw) - set(readers))]
    for name in sorted(set(raw) & set(readers)):
        try:
            values[name] = readers[name](raw[name])
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise OptionsError("cannot use the options: " + "; ".join(wrong))
    if "script" not in values:
        values["script"] = SCRIPT if os.path.exists(SCRIPT) else None
    if "cgroup_root" not in values:
        values["cgroup_root"] = find_root()
    values.setdefault("host", socket.gethostname())
    return Options(**values)


def find_root() -> str:
    """Return the mount point of the root of cgroup v2, in the unified or hybrid layout. Raises HostError."""
    for point, root in cgroup2_mounts().items():
        if root == "/":
            return point
    raise HostError("cannot watch cgroups: no cgroup2 is mounted whole; see option cgroup_root")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{value!r} is not text")
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r} is not an absolute path")
    return value.rstrip("/") or "/"


def _list(value: object) -> list[object]:
    if value == {}:  # an empty table of Lua is both a list and an object
        return []
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list")
    return value


def _scopes(value: object) -> tuple[str, ...]:
    scopes = tuple(_path(item) for item in _list(value))
    for scope in scopes:
        if scope != os.path.normpath(scope) or scope == "/":
            raise ValueError(f"{scope!r} cannot be a scope")
    if not scopes:
        raise ValueError("there is none")
    return scopes


def _paths(value: object) -> tuple[str, ...]:
    return tuple(_path(item) for item in _list(value))


def _names(value: object) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _delay(value: object) -> float:
    seconds = _seconds(value)
    if not 0 <= seconds <= LONGEST_DELAY:
        raise ValueError(f"{value!r} is not between 0 and an hour")
    return seconds


def _keep(value: object) -> float:
    seconds = _seconds(value)
    if seconds < SHORTEST_KEEP:
        raise ValueError(f"{value!r} is shorter than an hour")
    return seconds


def _seconds(value: object) -> float:
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match:
        return float(match[1]) * _SECONDS_IN[match[2] or "s"]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{value!r} is not a duration (like '50ms')")


def _size(value: object) -> int:
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match:
        return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2].lower()]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a size (like '1g')")
    return value


def read_database(value: object) -> str:
    """Check the address of a database. Raises ValueError."""
    text = _text(value)
    kind, _, rest = text.partition(":")
    if kind not in ("sqlite", "postgresql") or (kind == "sqlite" and not rest.startswith("/")):
        # without the value, which may contain a password
        raise ValueError("it is neither 'sqlite:/PATH' nor 'postgresql:CONNINFO'")
    return text
