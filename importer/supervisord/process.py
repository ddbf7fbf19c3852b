"""One process of a program of supervisord while it is converted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from importer.ini import Entry, Section
from importer.ledger import Ledger
from importer.result import Definition, SourceError
from importer.supervisord.files import expand, pairs

_BOOLEAN = {
    **dict.fromkeys(("true", "yes", "on", "1", "t", "y"), True),
    **dict.fromkeys(("false", "no", "off", "0", "f", "n"), False),
}


@dataclass(frozen=True, slots=True)
class Common:
    """Settings of supervisord's own section that count for all programs."""

    user: str = "root"
    umask: str = "022"
    directory: str = ""
    limits: dict[str, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Process:
    """Entries of a program, and what their `%(name)s` stand for in this process."""

    section: Section
    values: Mapping[str, str | int]
    common: Common
    ledger: Ledger
    definition: Definition

    def entry(self, name: str) -> Entry | None:
        return self.section.entries.get(name)

    def text(self, name: str, default: str = "") -> str:
        """Return the expanded value of an entry. Raises SourceError."""
        entry = self.entry(name)
        return default if entry is None else expand(entry, self.values).strip()

    def integer(self, name: str, default: int) -> int:
        text = self.text(name, str(default))
        if not text.isascii() or not text.isdecimal() or len(text) > 9:
            raise self.error(name, f"a number expected, not {text!r}")
        return int(text)

    def boolean(self, name: str, default: bool) -> bool:
        text = self.text(name, str(default)).lower()
        if text not in _BOOLEAN:
            raise self.error(name, f"true or false expected, not {text!r}")
        return _BOOLEAN[text]

    def variables(self, name: str) -> dict[str, str]:
        entry = self.entry(name)
        return {} if entry is None else pairs(entry, expand(entry, self.values))

    def error(self, name: str, text: str) -> SourceError:
        entry = self.entry(name)
        directive = entry.directive if entry else self.section.directive
        return SourceError(directive.file, directive.line, f"{name}: {text}")

    def carried(self, *names: str) -> None:
        for name in names:
            if entry := self.entry(name):
                self.ledger.carried(entry.directive)

    def approximate(self, name: str, text: str, comment: bool = True) -> None:
        if entry := self.entry(name):
            self.ledger.approximate(entry.directive, text, self.definition if comment else None)

    def left_out(self, name: str, text: str) -> None:
        if entry := self.entry(name):
            self.ledger.left_out(entry.directive, text, self.definition)
