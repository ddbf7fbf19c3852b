"""Files of xinetd, see xinetd.conf(5): sections of attributes, and what they include."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from importer.ledger import Directive
from importer.result import SourceError
from importer.sources import listed, read_source

DEFAULTS = "defaults"
_ATTRIBUTE = re.compile(r"(?P<name>\w+)\s*(?P<operator>\+=|-=|=)\s*(?P<values>.*)")


@dataclass(frozen=True, slots=True)
class Attribute:
    """`name operator values…`; the operator is `=`, `+=` or `-=`."""

    directive: Directive
    name: str
    operator: str
    values: tuple[str, ...]


@dataclass(slots=True)
class Section:
    """`service NAME`, or the defaults, whose name is ''."""

    directive: Directive
    name: str
    attributes: list[Attribute] = field(default_factory=list)


class Reader:
    """Reads files and what they include, each of them once. Sections are in the order of reading."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.errors: list[SourceError] = []
        self._seen: set[str] = set()

    def read(self, path: str) -> None:
        """Read a file, or a folder as one that is included."""
        try:
            if os.path.isdir(path):
                self._folder(path)
            else:
                self._file(path)
        except SourceError as error:
            self.errors.append(error)

    def _folder(self, path: str) -> None:
        for file in listed(path, ""):
            name = os.path.basename(file)
            if "." not in name and not name.endswith("~") and os.path.isfile(file):
                self.read(file)

    def _file(self, path: str) -> None:
        real = os.path.realpath(path)
        if real in self._seen:
            return
        text = read_source(path)
        self._seen.add(real)
        section: Section | None = None
        is_open = False
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            directive = Directive(path, number, line)
            if section is None:
                section = self._outside(directive)
            elif not is_open:
                is_open = line == "{"
                if not is_open:
                    self._broken(directive, "'{' expected")
                    section = None
            elif line == "}":
                self.sections.append(section)
                section, is_open = None, False
            else:
                self._attribute(section, directive)
        if section is not None:
            self._broken(section.directive, "'}' is missing")

    def _outside(self, directive: Directive) -> Section | None:
        """Return the section that begins on a line."""
        match directive.text.split():
            case ["defaults"]:
                return Section(directive, "")
            case ["service", name]:
                return Section(directive, name)
            case ["include", path] if not os.path.isdir(path):
                self._include(directive, path)
            case ["includedir", path]:
                self._include(directive, path)
            case _:
                self._broken(directive, "'service NAME', 'defaults', 'include FILE' or 'includedir FOLDER' expected")
        return None

    def _include(self, directive: Directive, path: str) -> None:
        if os.path.exists(path):
            self.read(path)
        else:
            self._broken(directive, f"cannot read {path!r}: No such file or directory")

    def _attribute(self, section: Section, directive: Directive) -> None:
        match = _ATTRIBUTE.fullmatch(directive.text)
        if match is None:
            self._broken(directive, "'ATTRIBUTE = VALUE' expected")
            return
        values = tuple(match["values"].split())
        section.attributes.append(Attribute(directive, match["name"].lower(), match["operator"], values))

    def _broken(self, directive: Directive, text: str) -> None:
        self.errors.append(SourceError(directive.file, directive.line, text))
