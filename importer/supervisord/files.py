"""Files of supervisord: a main file and what it includes, and `%(name)s` in values."""

from __future__ import annotations

import glob
import os
import platform
import re
from collections.abc import Mapping

from importer.ini import Entry
from importer.ledger import Ledger
from importer.programs import Sections
from importer.result import SourceError

INLINE = ";#"
_EXPANSION = re.compile(r"%(?:%|\((?P<name>[^)]*)\)(?P<format>0?\d{0,2})(?P<type>[sd])|(?P<bad>.?))", re.S)
_PAIR = re.compile(r"""\s*([^\s=,]+)\s*=\s*((?:"(?:[^"\\]|\\.)*"|'[^']*'|[^,"'\n])*)\s*(?:[,\n]|$)\s*""")


class Sources(Sections):
    """A main file and what it includes."""

    def read(self, path: str, ledger: Ledger) -> None:
        """Read a main file, and the files that its section `include` names."""
        for section in self.parsed(path, INLINE):
            if section.name == "include":
                for entry in section.entries.values():
                    self._include(entry, ledger)
            else:
                self.sections.append(section)

    def _include(self, entry: Entry, ledger: Ledger) -> None:
        if entry.name != "files":
            ledger.left_out(entry.directive, "supervisord does not have it", None)
            return
        ledger.carried(entry.directive)
        folder = folder_of(entry)
        try:
            patterns = expand(entry, {}).split()
        except SourceError as error:
            self.errors.append(error)
            return
        for pattern in patterns:
            for path in sorted(glob.glob(os.path.join(folder, pattern))):
                self.sections += [section for section in self.parsed(path, INLINE) if section.name != "include"]


def folder_of(entry: Entry) -> str:
    return os.path.dirname(os.path.abspath(entry.directive.file))


def expand(entry: Entry, values: Mapping[str, str | int]) -> str:
    """Return a value with everything expanded. Raises SourceError, also for a variable that is not set."""
    own = {"here": folder_of(entry), "host_node_name": platform.node(), **values}

    def one(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        name = match["name"]
        if name is None:
            raise _error(entry, f"'%' stands before {match['bad']!r}: write '%%'")
        if name not in own:
            hint = f": run {name[4:]}=VALUE spawnctl import …" if name.startswith("ENV_") else ""
            raise _error(entry, f"'%({name})s' is not set{hint}")
        value = own[name]
        if match["type"] == "d" and not isinstance(value, int):
            raise _error(entry, f"'%({name})d' is no number")
        return f"{value:{match['format'].lstrip('0') if isinstance(value, str) else match['format']}}"

    return _EXPANSION.sub(one, entry.value)


def pairs(entry: Entry, text: str) -> dict[str, str]:
    """Return the variables of `A="b",C=d`. Raises SourceError."""
    found: dict[str, str] = {}
    position = 0
    text = text.strip()
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None or match.end() == position:
            raise _error(entry, f'KEY="value" expected at {text[position : position + 20]!r}')
        found[match[1]] = _unquoted(match[2].strip())
        position = match.end()
    return found


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\([\"\\])", r"\1", text[1:-1])
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text


def _error(entry: Entry, text: str) -> SourceError:
    return SourceError(entry.directive.file, entry.directive.line, f"{entry.name}: {text}")
