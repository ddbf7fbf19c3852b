"""Values of keys: plain data, or Lua as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from supervisor.definitions.notation import lua


@dataclass(frozen=True, slots=True)
class Code:
    """Lua as it is, such as a call of a constructor."""

    text: str


# text, numbers, true and false, code, lists, tables with names
Value = str | int | float | bool | Code | Sequence["Value"] | Mapping[str, "Value"]


def call(name: str, /, *arguments: Value, **options: Value) -> Code:
    """Return a call such as `tcp("0.0.0.0", 69)`, `log()`; options become a table, the last argument."""
    texts = [value_text(argument) for argument in arguments]
    if options:
        texts.append(lua.one_line(value_text(options)))
    return Code(f"{name}({', '.join(texts)})")


def value_text(value: Value) -> str:
    """Return a value as Lua; a table that is too long for one line has an entry on each line."""
    match value:
        case Code():
            return value.text
        case bool():
            return lua.boolean(value)
        case str():
            return lua.string(value)
        case int() | float():
            return lua.number(value)
        case Mapping():
            return lua.table({name: value_text(item) for name, item in value.items()})
        case _:
            return lua.braces(map(value_text, value))
