"""Names of network interfaces, and the name of a link whose namespace has none that is legal."""

from __future__ import annotations

import hashlib
import re

from supervisor.definitions.convert.text import text
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.values import describe

LONGEST = 15  # IFNAMSIZ is 16, with a NUL
RESERVED = frozenset({".", "..", "all", "default", "lo"})  # the second two are folders of net.ipv4.conf

_LEGAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,14}")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_.-]")
_HEAD, _TAIL = 8, 6


def is_interface_name(name: str) -> bool:
    """Whether an interface can have this name, and tools can be given it."""
    return _LEGAL.fullmatch(name) is not None and name not in RESERVED


def interface(value: object, scope: Scope) -> str:
    name = text(value, scope)
    if not is_interface_name(name):
        rule = f"1 to {LONGEST} of A-Z a-z 0-9 _ . + -, the first one a letter, a digit or '_'"
        raise Bad(f"{describe(value)} cannot be the name of an interface: {rule}, and not {', '.join(_reserved())}")
    return name


def _reserved() -> list[str]:
    return sorted(name for name in RESERVED if name.isalpha())


def link_name(namespace: str) -> str:
    """The name of the link on the host: the namespace's, or one that is derived from it, the same each time."""
    if is_interface_name(namespace):
        return namespace
    digest = hashlib.sha256(namespace.encode()).hexdigest()
    return f"{_ILLEGAL.sub('_', namespace)[:_HEAD]}-{digest[:_TAIL]}"
