"""Plain values in the notation of Lua."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

NIL = "nil"
ROOM = 72  # columns for a table on one line

_BREAK = re.compile(r"\n *")
_LAST_BREAK = re.compile(r",\n *}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.A)
_RESERVED = frozenset(
    "and break do else elseif end false for function goto if in local nil not or repeat return then true until "
    "while".split()
)


def string(text: str) -> str:
    """Return a string in quotes; unprintable characters are escaped byte by byte."""
    return f'"{"".join(map(_letter, text))}"'


def _letter(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return "\\n" if letter == "\n" else "".join(f"\\{byte:03}" for byte in letter.encode(errors="surrogateescape"))


def number(value: float) -> str:
    """Return the shortest text for this number."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def boolean(value: bool) -> str:
    return "true" if value else "false"


def braces(items: Iterable[str]) -> str:
    """Return a table of these entries, each on its own line unless all fit on one."""
    entries = list(items)
    if not entries:
        return "{}"
    short = f"{{ {', '.join(entries)} }}"
    if "\n" not in short and (len(short) <= ROOM or len(entries) == 1):
        return short
    return "\n".join(["{", *(f"  {indented(entry)}," for entry in entries), "}"])


def one_line(text: str) -> str:
    """Return a value of several lines on one: line breaks stand only between entries."""
    return _BREAK.sub(" ", _LAST_BREAK.sub(" }", text))


def indented(text: str) -> str:
    """Return a value of several lines, indented except for its first line."""
    return text.replace("\n", "\n  ")


def strings(values: Iterable[str]) -> str:
    return braces(map(string, values))


def table(values: Mapping[str, str]) -> str:
    """Return a table with names; the values are Lua already."""
    return braces(f"{key(name)} = {text}" for name, text in values.items())


def key(name: str) -> str:
    return name if is_name(name) else f"[{string(name)}]"


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and text not in _RESERVED


def data(value: object) -> str:
    """Return free data: text, numbers, true and false, lists, tables with names."""
    match value:
        case bool():
            return boolean(value)
        case str():
            return string(value)
        case int() | float():
            return number(value)
        case list():
            return braces(map(data, value))
        case dict():
            return table({name: data(item) for name, item in value.items()})
        case _:
            return NIL
