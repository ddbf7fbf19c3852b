"""The table that a value belongs to, for the converters: its lines, its problems, the databases of the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.definitions.databases import Databases
from supervisor.definitions.lines import Node, line_of
from supervisor.definitions.problems import InvalidValue, Path, Problems, show


@dataclass(slots=True)
class Checking:
    """A table of a file that is being converted: a service, `_DEFAULT` or `_SUPERVISOR`."""

    databases: Databases
    problems: Problems
    file: str
    name: str
    line: int
    node: Node

    def line_of(self, path: Path, known: int = 0) -> int:
        """Return the best line for `path`; `known` is the line of the call that made the value."""
        line, exact = line_of(self.node, path)
        if known and not (exact and len(path) > 2):
            return known
        return line or self.line

    def problem(self, message: str, *path: str | int) -> None:
        """Add a problem of the value that `path` leads to from this table."""
        self.invalid(InvalidValue(message), *path)

    def invalid(self, error: InvalidValue, *path: str | int) -> None:
        """Add a problem that a converter has raised; `path` leads from this table to where its own path begins."""
        whole = path + error.path
        where = f"{show(whole)}: " if whole else ""
        self.problems.add(self.file, self.line_of(whole, error.line), f"{self.name}: {where}{error.message}")

    def notice(self, message: str, *path: str | int, about: Sequence[str] = ()) -> None:
        """Add a notice; `about` are the services that it compares, where it does."""
        where = f"{show(path)}: " if path else ""
        self.problems.notice(self.file, self.line_of(path), f"{self.name}: {where}{message}", about)
