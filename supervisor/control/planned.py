"""Rows about a plan: plain values, as in the interface description."""

from __future__ import annotations

from supervisor.definitions.notation import lua
from supervisor.definitions.notation.keys import ENTRIES, SHOW, functions
from supervisor.definitions.service import FUNCTIONS, Service, Settings
from supervisor.lifecycle.plan import AT_BOOT, Plan, ServicePlan, change_of_key

ADDED, REMOVED, CHANGED, SAME = "added", "removed", "changed", "same"
ACCOUNTS = {"user": "uid", "group": "gid", "groups": "gids"}


def service_rows(plan: Plan) -> list[dict[str, object]]:
    """Return a row for each service with a planned effect."""
    return [_service_row(entry) for entry in plan.services.values()]


def setting_rows(plan: Plan) -> list[dict[str, object]]:
    """Return a row for each setting of `_SUPERVISOR` that changes."""
    return [_setting_row(key, plan.old_settings, plan.definitions.settings) for key in plan.settings]


def _service_row(entry: ServicePlan) -> dict[str, object]:
    defined = entry.new or entry.old
    return {
        "name": entry.name,
        "change": _change(entry),
        "step": entry.effect.value,
        "reason": entry.reason,
        "deferred": entry.deferred,
        "reloads": entry.reloads,
        "file": defined.file if defined is not None else "",
        "line": defined.line if defined is not None else 0,
        "keys": _key_rows(entry),
    }


def _change(entry: ServicePlan) -> str:
    if entry.old is None:
        return ADDED
    if entry.new is None:
        return REMOVED
    return CHANGED if entry.keys else SAME


def _key_rows(entry: ServicePlan) -> list[dict[str, object]]:
    old, new = entry.old, entry.new
    if old is None or new is None:
        return []
    return [row for key in entry.keys for row in _rows_of(key, old, new)]


def _rows_of(key: str, old: Service, new: Service) -> list[dict[str, object]]:
    """Return one row or, for a key with entries, one for each entry that differs."""
    asks = change_of_key(key).value
    if key == "status":
        asks = "start" if new.autostart else "stop"
    line = new.lines.get(key, new.line)
    place: dict[str, object] = {"asks": asks, "file": new.file, "line": line}
    return [{"key": name, "old": before, "new": after} | place for name, before, after in _values(key, old, new)]


def _values(key: str, old: Service, new: Service) -> list[tuple[str, str, str]]:
    """Return the differences, each with its old and new value."""
    if key in ENTRIES:  # these may be long: only the differing entries are shown
        before, after = ENTRIES[key](old), ENTRIES[key](new)
        names = sorted(before.keys() | after.keys(), key=_by_number)
        found = [(_entry(key, name), before.get(name, lua.NIL), after.get(name, lua.NIL)) for name in names]
        return [(name, lua.one_line(one), lua.one_line(other)) for name, one, other in found if one != other]
    show = functions if key == FUNCTIONS else SHOW[key]
    one, other = (lua.one_line(show(service)) for service in (old, new))
    if one == other and key in ACCOUNTS:  # the same name now stands for another account
        one, other = f"{one} -- {_ids(old, key)}", f"{other} -- {_ids(new, key)}"
    return [(key, one, other)]


def _ids(service: Service, key: str) -> str:
    ids = getattr(service, ACCOUNTS[key])
    return ", ".join(map(str, ids)) if isinstance(ids, tuple) else str(ids)


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() and name.isascii() else (0, name)


def _entry(key: str, name: str) -> str:
    """Return the name of an entry as in messages about definitions: `env.PATH`, `fd[2]`."""
    return f"{key}[{name}]" if key == "fd" else f"{key}.{name}"


def _setting_row(key: str, old: Settings, new: Settings) -> dict[str, object]:
    file, _, line = new.places.get(key, ":0").rpartition(":")
    before, after = getattr(old, key), getattr(new, key)
    return {
        "key": key,
        "old": _setting(before),
        "new": _setting(after),
        "deferred": key in AT_BOOT,
        "file": file,
        "line": int(line),
    }


def _setting(value: object) -> str:
    return lua.NIL if value == "" else lua.data(value)
