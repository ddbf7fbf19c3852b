"""The `options` of the definition.

    options = {
      allow = { root = "any", ["cm4all-beng-spawn"] = "any", ["@developers"] = "own", ci = { "100000-165535" } },
      expiry = "60s",
      quota = { connections = 100, names = 1000, namespaces = 2000, leases = 1000 },
    }
"""

from __future__ import annotations

import errno
import grp
import marshal
import os
import pwd
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from supervisor.log.logger import notice
from workers.accessory.id_map import Ids, parse_ids
from workers.accessory.protocol import OptionsError

EXPIRY = 60.0  # seconds
ANY = "any"
OWN = "own"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_KEYS = ("allow", "expiry", "quota")


@dataclass(frozen=True, slots=True)
class Allowance:
    """The ids that a rule allows to map: any, the client's own ones, and certain ranges."""

    any: bool = False
    own: bool = False
    ids: tuple[Ids, ...] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that a user may have at a time, by kind; None: limited only by the descriptors."""

    connections: int | None = None
    names: int | None = None
    namespaces: int | None = None
    leases: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the accessory; `users` and `groups` are allowances by id, `expiry` is in seconds."""

    users: Mapping[int, Allowance] = field(default_factory=lambda: {0: Allowance(any=True)})
    groups: Mapping[int, Allowance] = field(default_factory=dict)
    expiry: float = EXPIRY
    quota: Quota = Quota()


def parse_options(options: Mapping[str, Any]) -> Options:
    """Return the options. Raises OptionsError. Users and groups unknown to the host are skipped with a notice."""
    for key in options:
        if key not in _KEYS:
            raise OptionsError(f"options.{key}: unknown, known are {', '.join(_KEYS)}")
    users, groups = _allow(_table(options, "allow")) if "allow" in options else ({0: Allowance(any=True)}, {})
    expiry = _duration(options["expiry"]) if "expiry" in options else EXPIRY
    return Options(users, groups, expiry, _quota(_table(options, "quota")))


def _table(options: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a table by name; an empty Lua table may arrive as a list."""
    value = options.get(key) or {}
    if not isinstance(value, dict):
        raise OptionsError(f"options.{key}: not a table by name")
    return value


def _allow(rules: Mapping[str, Any]) -> tuple[dict[int, Allowance], dict[int, Allowance]]:
    """Return the allowances by uid and by gid."""
    users: dict[int, Allowance] = {}
    groups: dict[int, Allowance] = {}
    allowances = {name: _allowance(name, value) for name, value in rules.items()}
    for (name, allowance), id in zip(allowances.items(), _look_up(list(allowances)), strict=True):
        if id is None:
            notice("options.allow: %r skipped: this host has no such %s", name, "group" if name[:1] == "@" else "user")
        else:
            (groups if name[:1] == "@" else users)[id] = allowance
    return users, groups


def _ids(names: Iterable[str]) -> list[int | None]:
    """Return the uid of each user and the gid of each `@group`; None if the host does not know the name."""
    found: list[int | None] = []
    for name in names:
        try:
            found.append(grp.getgrnam(name[1:]).gr_gid if name[:1] == "@" else pwd.getpwnam(name).pw_uid)
        except KeyError:
            found.append(None)
    return found


def _look_up(names: list[str]) -> list[int | None]:
    """Return the result of `_ids`, found in a child, to keep the libraries of name services (0.4 MB) out of here.

    Raises OSError if the child has no result.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with open(write_end, "wb") as pipe:
                pipe.write(marshal.dumps(_ids(names)))
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    if not data:
        raise OSError(errno.EIO, "cannot look up users and groups")
    found: list[int | None] = marshal.loads(data)  # noqa: S302  a child of our own wrote it
    return found


def _allowance(name: str, value: object) -> Allowance:
    if value == ANY:
        return Allowance(any=True)
    if value == OWN:
        return Allowance(own=True)
    ranges = [value] if isinstance(value, str) else value
    if not isinstance(ranges, list) or not all(isinstance(text, str) for text in ranges):
        raise OptionsError(f"options.allow: {name!r} has neither 'any' nor 'own' nor a list of ranges: {value!r}")
    try:
        return Allowance(ids=tuple(map(parse_ids, ranges)))
    except ValueError as error:
        raise OptionsError(f"options.allow: {name!r} has neither 'any' nor 'own': {error}") from error


def _duration(value: object) -> float:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        seconds = float(found[1]) * _SECONDS[found[2]]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise OptionsError(f"options.expiry: {value!r} is not a time, as '60s'")
    if not 0 < seconds <= 365 * 86400:
        raise OptionsError(f"options.expiry: {value!r} is not between 0 and a year")
    return seconds


def _quota(values: Mapping[str, Any]) -> Quota:
    known = [entry.name for entry in fields(Quota)]
    for key, value in values.items():
        if key not in known:
            raise OptionsError(f"options.quota.{key}: unknown, known are {', '.join(known)}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise OptionsError(f"options.quota.{key}: {value!r} is not a number of them")
    return Quota(**values)
