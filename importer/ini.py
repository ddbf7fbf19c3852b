"""Files with sections, as Python's configparser reads them, with the lines of all entries.

A line that begins with `;` or `#` is a comment, and so is the rest of a line behind a blank and one of these, where
`inline` has it. A line that is indented goes on with the value of the entry before it. Of several entries of a name the
last one counts, and sections of one name are one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from importer.ledger import Directive
from importer.result import SourceError

_SECTION = re.compile(r"\[(?P<name>[^\]]+)\]")
_ENTRY = re.compile(r"(?P<name>[^=:]+?)\s*[=:]\s*(?P<value>.*)")


@dataclass(slots=True)
class Entry:
    """`name = value`; the lines of a value are divided by newlines."""

    directive: Directive
    name: str
    value: str


@dataclass(slots=True)
class Section:
    directive: Directive
    name: str
    entries: dict[str, Entry] = field(default_factory=dict)


def parse(path: str, text: str, inline: str) -> tuple[list[Section], list[SourceError]]:
    """Return the sections of a file, and the errors of lines that are nothing of it."""
    sections: dict[str, Section] = {}
    errors: list[SourceError] = []
    section: Section | None = None
    entry: Entry | None = None
    for number, raw in enumerate(text.split("\n"), 1):
        line = _without_comment(raw, inline)
        stripped = line.strip()
        if not stripped:
            continue
        if line[0] in " \t" and entry is not None and section is not None:
            entry.value = f"{entry.value}\n{stripped}".lstrip("\n")
            entry.directive = Directive(path, entry.directive.line, f"{entry.directive.text} {stripped}")
            section.entries[entry.name] = entry
        elif match := _SECTION.fullmatch(stripped):
            section = sections.setdefault(match["name"], Section(Directive(path, number, stripped), match["name"]))
            entry = None
        elif section is not None and (match := _ENTRY.fullmatch(stripped)):
            entry = Entry(Directive(path, number, stripped), match["name"].lower(), match["value"])
            section.entries[entry.name] = entry
        elif section is not None or stripped.startswith("[") or not errors:
            entry = None
            if stripped.startswith("["):
                section = None  # up to the next one
            errors.append(SourceError(path, number, "'[SECTION]' or 'NAME = VALUE' expected"))
    return list(sections.values()), errors


def _without_comment(line: str, inline: str) -> str:
    line = line.rstrip()
    if line.lstrip()[:1] in ("#", ";"):
        return ""
    for index, char in enumerate(line):
        if char in inline and index and line[index - 1].isspace():
            return line[:index].rstrip()
    return line
