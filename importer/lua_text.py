"""Definitions as Lua that a person would write: bare names, one key a line, short tables on one line."""

from __future__ import annotations

from collections.abc import Sequence

from importer.result import Definition, Key, OutputFile
from importer.values import value_text
from supervisor.definitions.notation import lua
from supervisor.printable import printable

INDENT = "  "


def file_text(file: OutputFile) -> str:
    """Return the text of a definition file, with its final newline."""
    head = _comment_lines(file.comments, "")
    # a module reaches up to the next one: tables come first
    ordered = sorted(file.definitions, key=lambda definition: bool(definition.functions))
    parts = ["\n".join(head)] if head else []
    parts += [definition_text(definition) for definition in ordered]
    return "\n\n".join(parts) + "\n"


def definition_text(definition: Definition) -> str:
    """Return a service as a table, or as a module if it has functions; without a final newline."""
    if definition.functions:
        return _module_text(definition)
    name = definition.name
    target = name if lua.is_name(name) else f"_G[{lua.string(name)}]"
    head = [*_comment_lines(definition.comments, ""), f"{target} = {{"]
    return "\n".join([*head, *_entry_lines(definition, INDENT, ","), "}"])


def _module_text(definition: Definition) -> str:
    lines = [*_comment_lines(definition.comments, ""), f"module({lua.string(definition.name)}, package.seeall)"]
    lines += _entry_lines(definition, "", "")
    for function in definition.functions:
        lines += ["", f"function {function.name}()", *(f"{INDENT}{line}" for line in function.body), "end"]
    return "\n".join(lines)


def _entry_lines(definition: Definition, indent: str, end: str) -> list[str]:
    lines = []
    for entry in definition.entries:
        if isinstance(entry, Key):
            text = f"{lua.key(entry.name)} = {value_text(entry.value)}{end}"
            lines += [f"{indent}{line}" for line in text.split("\n")]
        else:
            lines += _comment_lines([entry.text], indent)
    return lines


def _comment_lines(texts: Sequence[str], indent: str) -> list[str]:
    return [f"{indent}-- {printable(line)}".rstrip() for text in texts for line in text.split("\n")]
