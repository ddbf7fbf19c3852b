"""The `options` of the definition.

    options = {
      allow = { root = "any", ["cm4all-beng-spawn"] = "any", ["@developers"] = "own", ci = { "100000-165535" } },
      expiry = "60s",
      quota = { connections = 100, names = 1000, namespaces = 2000, leases = 1000 },
    }
"""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from supervisor.log.logger import notice
from workers.accessory.errors import OptionsError
from workers.accessory.id_map import Ids, parse_ids

EXPIRY = 60.0  # seconds
ANY = "any"
OWN = "own"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_KEYS = ("allow", "expiry", "quota")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What somebody may map: any ids, their own ones, and certain ranges."""

    any: bool = False
    own: bool = False
    ids: tuple[Ids, ...] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of each a user may have at a time; None: as much as there are descriptors."""

    connections: int | None = None
    names: int | None = None
    namespaces: int | None = None
    leases: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """`users` and `groups` are allowances by id.  `expiry` is in seconds."""

    users: Mapping[int, Allowance] = field(default_factory=lambda: {0: Allowance(any=True)})
    groups: Mapping[int, Allowance] = field(default_factory=dict)
    expiry: float = EXPIRY
    quota: Quota = Quota()


def parse_options(options: Mapping[str, Any]) -> Options:
    """Raises OptionsError.  A user or group that the host does not have is skipped with a notice."""
    for key in options:
        if key not in _KEYS:
            raise OptionsError(f"options.{key}: unknown, known are {', '.join(_KEYS)}")
    users, groups = _allow(_table(options, "allow")) if "allow" in options else ({0: Allowance(any=True)}, {})
    expiry = _duration(options["expiry"]) if "expiry" in options else EXPIRY
    return Options(users, groups, expiry, _quota(_table(options, "quota")))


def _table(options: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An empty table of Lua may come as a list."""
    value = options.get(key) or {}
    if not isinstance(value, dict):
        raise OptionsError(f"options.{key}: not a table by name")
    return value


def _allow(rules: Mapping[str, Any]) -> tuple[dict[int, Allowance], dict[int, Allowance]]:
    users: dict[int, Allowance] = {}
    groups: dict[int, Allowance] = {}
    for name, value in rules.items():
        allowance = _allowance(name, value)
        try:
            if name.startswith("@"):
                groups[grp.getgrnam(name[1:]).gr_gid] = allowance
            else:
                users[pwd.getpwnam(name).pw_uid] = allowance
        except KeyError:
            notice("options.allow: %r skipped: this host has no such %s", name, "group" if name[:1] == "@" else "user")
    return users, groups


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
