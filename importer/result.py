"""Result of an import: definitions to be written, and what became of each directive of the source."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from importer.values import Value
from supervisor.definitions.values import is_service_name
from supervisor.printable import printable

# no service has these names, or a service of that name would hide a function that its file calls
RESERVED = frozenset(
    "log all netns ports file udp tcp stream dgram seqpacket module package depends assert print string table math os "
    "io proc fsys net unix syslog".split()
)
LONGEST_NAME = 64
SHOWN = 60  # characters of a directive in comments and tables


class Outcome(StrEnum):
    """Fate of a directive."""

    CARRIED = "carried over"
    APPROXIMATE = "approximate"
    LEFT_OUT = "not carried over"


@dataclass(frozen=True, slots=True)
class Finding:
    """Fate of one directive, as it is written on a line of a file, such as `ProtectSystem=strict`.

    `text` says how the result differs, or why there is none; '' if there is no more to say.
    """

    file: str
    line: int
    directive: str
    outcome: Outcome
    text: str = ""

    @property
    def place(self) -> str:
        """The file without its folder, and the line, as `web.service:12`."""
        return f"{os.path.basename(self.file)}:{self.line}"

    @property
    def shown(self) -> str:
        """The directive in one line, cut where it is long."""
        text = printable(" ".join(self.directive.split()))
        return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"

    def comment(self) -> str:
        """Return the text of the comment that stands for the directive, without the dashes."""
        outcome = "" if self.outcome is Outcome.APPROXIMATE and self.text else f": {self.outcome}"
        more = f": {self.text}" if not outcome else f", {self.text}" if self.text else ""
        return f"{self.shown}{outcome}{more} ({self.place})"


class SourceError(Exception):
    """A source cannot be converted: `FILE:LINE: text`. Line 1 stands for the whole file."""

    def __init__(self, file: str, line: int, text: str) -> None:
        super().__init__(f"{printable(file)}:{max(line, 1)}: {printable(text)}")
        self.file = file
        self.line = max(line, 1)
        self.text = text


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a definition, with its value."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment between the keys of a definition."""

    text: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a module: its name, and the lines of its body."""

    name: str
    body: tuple[str, ...]


@dataclass(slots=True)
class Definition:
    """A service: comments above it, and its keys and comments in the order of the source.

    A definition with functions is written as a module.
    """

    name: str
    comments: list[str] = field(default_factory=list)
    entries: list[Key | Comment] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)

    @property
    def keys(self) -> dict[str, Value]:
        return {entry.name: entry.value for entry in self.entries if isinstance(entry, Key)}

    def set(self, name: str, value: Value) -> None:
        """Set a key, in its place if it is there already."""
        new = Key(name, value)
        for index, entry in enumerate(self.entries):
            if isinstance(entry, Key) and entry.name == name:
                self.entries[index] = new
                return
        self.entries.append(new)

    def remove(self, name: str) -> None:
        """Remove a key, if it is there."""
        self.entries = [entry for entry in self.entries if not isinstance(entry, Key) or entry.name != name]

    def note(self, text: str) -> None:
        """Add a comment at the present end."""
        self.entries.append(Comment(text))


@dataclass(slots=True)
class OutputFile:
    """A definition file to be written; `name` ends in `.lua`."""

    name: str
    definitions: list[Definition] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """Files in the order of the sources, the fates of all directives, and sources that are broken."""

    files: list[OutputFile] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    errors: list[SourceError] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        return sum(finding.outcome is outcome for finding in self.findings)


def service_name(text: str, taken: Iterable[str] = ()) -> str:
    """Return a legal name of a service that resembles `text` and is not among `taken`."""
    base = "".join(char if char.isascii() and (char.isalnum() or char in "_.@-") else "_" for char in text)
    base = base.lstrip(".@-")[:LONGEST_NAME] or "service"
    refused = RESERVED.union(taken)
    number, name = 2, base if base not in RESERVED else f"{base}_service"
    while name in refused:
        name = f"{base[: LONGEST_NAME - 4]}_{number}"
        number += 1
    assert is_service_name(name), name
    return name
