"""`sysctl`: settings of the kernel that each network namespace has for itself, those below `net`."""

from __future__ import annotations

from typing import Any

from supervisor.definitions.convert.mapping import names
from supervisor.definitions.convert.text import word
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.values import describe


def sysctl(value: object, scope: Scope) -> dict[str, str]:
    """By path below `/proc/sys`.  A name has dots or, where an interface's has one, slashes: sysctl(8)."""
    found: dict[str, str] = {}
    given: dict[str, Any] = names(value, '{ ["net.ipv4.ip_forward"] = 1 }')
    for name, setting in sorted(given.items()):
        try:
            path = _path(name)
            if path in found:
                raise Bad("is given twice")
            found[path] = _setting(setting)
        except Bad as error:
            scope.bad(error, "sysctl", name)
    return found


def _path(name: str) -> str:
    path = name if "/" in name else name.replace(".", "/")
    parts = path.split("/")
    if not path.isprintable() or len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        raise Bad(f"{describe(name)} is not the name of a setting")
    if parts[0] != "net":
        raise Bad(f"{describe(name)} is not a setting of a network namespace: those begin with 'net.'")
    return path


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    text = word(value)
    if not text or "\n" in text:
        raise Bad(f"{describe(value)} cannot be the value of a setting")
    return text
