"""The text of unit files, as in systemd.syntax(7)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from importer.result import SourceError
from importer.sources import read_source

_SECTION = re.compile(r"\[([^\[\]]+)\]")
COMMENTS = ("#", ";")


@dataclass(frozen=True, slots=True)
class Entry:
    """An assignment; the value has its continuation lines joined by blanks."""

    section: str
    key: str
    value: str
    file: str
    line: int

    @property
    def directive(self) -> str:
        return f"{self.key}={self.value}"


def read_entries(path: str) -> list[Entry]:
    """Return the assignments of a unit file or drop-in. Raises SourceError."""
    return parse(path, read_source(path))


def parse(path: str, text: str) -> list[Entry]:
    """Return the assignments of a text. Raises SourceError with the first line that is no part of a unit file."""
    entries: list[Entry] = []
    section = ""
    for line, written in _joined(text):
        if found := _SECTION.fullmatch(written):
            section = found[1]
            continue
        key, equals, value = written.partition("=")
        key = key.strip()
        if not equals or not key:
            raise SourceError(path, line, f"neither a [Section] nor KEY=VALUE: {written[:60]!r}")
        if not section:
            raise SourceError(path, line, f"{key!r} is in front of the first [Section]")
        entries.append(Entry(section, key, value.strip(), path, line))
    return entries


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers; comments are left out, also between continuation lines."""
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith(COMMENTS) or (not parts and not stripped):
            continue
        begun = begun if parts else number
        goes_on = line.endswith("\\")
        parts.append(line[:-1] if goes_on else line)
        if not goes_on:
            yield begun, " ".join(parts).strip()
            parts = []
    if parts:
        yield begun, " ".join(parts).strip()
