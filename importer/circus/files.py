"""Files of circus: a main file and what it includes, and `$(circus.NAME)` in values."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Mapping

from importer.ini import Entry, Section
from importer.ledger import Ledger
from importer.programs import Sections
from importer.result import SourceError

_EXPANSION = re.compile(r"(?:\$|\()\((?P<name>circus\.[\w.-]+)\)\)?", re.I)
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)\}|(?P<bare>\w+))")


class Sources(Sections):
    """A main file and what it includes."""

    def read(self, path: str, ledger: Ledger) -> None:
        """Read a main file, and the files that its section `circus` includes."""
        for section in self.parsed(path, ";"):
            self.sections.append(section)
            if section.name == "circus":
                self._includes(section, ledger)

    def _includes(self, section: Section, ledger: Ledger) -> None:
        folder = os.path.dirname(os.path.abspath(section.directive.file))
        for name, suffix in (("include", ""), ("include_dir", "*.ini")):
            entry = section.entries.get(name)
            if entry is None:
                continue
            ledger.carried(entry.directive)
            for pattern in entry.value.split():
                for path in sorted(glob.glob(os.path.join(folder, pattern, suffix).rstrip("/"))):
                    self.sections += self.parsed(path, ";")


def expand(entry: Entry, values: Mapping[str, str | int]) -> str:
    """Return a value with what `$(circus.NAME)` stands for. Raises SourceError."""

    def one(match: re.Match[str]) -> str:
        name = match["name"].lower().removeprefix("circus.")
        if name not in values:
            hint = f": run {name[4:].upper()}=VALUE spawnctl import …" if name.startswith("env.") else ""
            directive = entry.directive
            raise SourceError(directive.file, directive.line, f"{entry.name}: '$({match['name']})' is not set{hint}")
        return str(values[name])

    return _EXPANSION.sub(one, entry.value)


def variables(sections: list[Section], watcher: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that sections `env:WATCHER,…` and `env` set for a watcher; `$NAME` are expanded."""
    found: dict[str, str] = {}

    def one(match: re.Match[str]) -> str:
        name = match["braced"] or match["bare"]
        return found.get(name, inherited.get(name, match[0]))

    for section in sections:
        kind, _, names = section.name.partition(":")
        patterns = [name.strip() for name in names.split(",")] if names else ["*"]
        if kind == "env" and any(fnmatch.fnmatchcase(watcher, pattern) for pattern in patterns):
            for entry in section.entries.values():
                name = re.split(r"\s*[=:]", entry.directive.text, maxsplit=1)[0]  # not in lower case
                found[name] = _VARIABLE.sub(one, entry.value)
    return found
