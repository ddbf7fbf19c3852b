"""Text: free, paths, names, choices."""

from __future__ import annotations

import re
from collections.abc import Callable

from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.values import describe, is_number

PATH_MAX = 4096
NAME_MAX = 255

_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


def usable(value: str) -> str:
    """`value` where the kernel can take it.  Raises Bad."""
    if "\0" in value:
        raise Bad(f"{describe(value)} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Bad(f"{describe(value)} is not UTF-8") from None
    return value


def text(value: object, scope: Scope) -> str:
    if not isinstance(value, str):
        raise Bad(f"has to be text, not {describe(value)}")
    return usable(value)


def word(value: object) -> str:
    """Text, or a number as Lua would print it."""
    if isinstance(value, str):
        return usable(value)
    if is_number(value):
        return f"{value:.14g}" if isinstance(value, float) else str(value)
    raise Bad(f"has to be text or a number, not {describe(value)}")


def description(value: object, scope: Scope) -> str:
    """One line: a long text in brackets spans several."""
    return " ".join(text(value, scope).split())


def absolute(value: object, scope: Scope) -> str:
    path = text(value, scope)
    if not path.startswith("/"):
        raise Bad(f"{describe(value)} is not an absolute path")
    if len(path.encode()) >= PATH_MAX:
        raise Bad(f"{describe(value)} is longer than the {PATH_MAX - 1} bytes that a path can have")
    return path


def file_name(value: object, scope: Scope) -> str:
    """The name of something in a folder that the supervisor knows."""
    name = text(value, scope)
    if not name or name in (".", "..") or "/" in name or len(name.encode()) > NAME_MAX:
        raise Bad(f"{describe(value)} is not a name")
    return name


def service_name(value: object, scope: Scope) -> str:
    name = text(value, scope)
    if not is_service_name(name):
        raise Bad(f"{describe(value)} is not the name of a service")
    return name


def is_service_name(name: str) -> bool:
    return _SERVICE.fullmatch(name) is not None


def choice(*names: str) -> Callable[[object, Scope], str]:
    """A converter that takes one of `names`."""

    def convert(value: object, scope: Scope) -> str:
        if isinstance(value, str) and value in names:
            return value
        one_of = " or ".join(repr(name) for name in names)
        raise Bad(f"{describe(value)} is not {one_of}" + hint(value, names))

    return convert
