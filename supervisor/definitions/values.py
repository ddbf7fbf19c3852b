"""Lua values after their conversion through JSON, and their names in messages.

A table is a list or a dict with text keys. Every other type of Lua is a dict with the key `TAG`, which no
other dict has: the call of a constructor (`{TAG: kind, "line": …, "args": […]}`), a table that is neither
list nor dict (`{TAG: "pairs", "pairs": …}`), or a thing that cannot be a value at all (`{TAG: "odd", "what":
"a function"}`).
"""

from __future__ import annotations

import re
from typing import Any

from supervisor.printable import quoted

TAG = "\0"
_LONGEST = 80
_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


def tag(value: object) -> str:
    """Return the constructor that made a value, `pairs` or `odd`; '' for plain values."""
    return str(value.get(TAG, "")) if isinstance(value, dict) else ""


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_digits(text: str) -> bool:
    """Whether `text` is a number for int(), which does not accept everything that isdigit() does."""
    return text.isascii() and text.isdigit()


def is_service_name(name: str) -> bool:
    """Whether a service can have this name."""
    return _SERVICE.fullmatch(name) is not None


def table(value: object) -> dict[str, Any] | None:
    """Return a table with names as keys, which an empty one may be; None for anything else."""
    if isinstance(value, dict) and TAG not in value:
        return value
    return {} if value == [] else None


def describe(value: object) -> str:
    """Return `value` as shown in a message."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value if len(value) <= _LONGEST else value[:_LONGEST] + "…")
    if isinstance(value, int | float):
        return repr(value)
    return _describe_table(value)


def _describe_table(value: object) -> str:
    kind = tag(value)
    if not kind:
        return "a list" if isinstance(value, list) and value else "a table"
    if kind == "odd":
        assert isinstance(value, dict)
        return str(value["what"])
    if kind == "pairs":
        return "a table that is neither a list without holes nor has names alone"
    return "ports[…]" if kind == "port" else f"{kind}(…)"
