"""What a converter knows of the place that its value stands in."""

from __future__ import annotations

from dataclasses import dataclass, field

from supervisor.definitions.accounts import Accounts
from supervisor.definitions.lines import Node, line_of
from supervisor.definitions.network import Network
from supervisor.definitions.problems import Bad, Path, Problems, show


@dataclass(slots=True)
class Host:
    """The databases of this host.  Where `root` is False no user is switched, and unknown ones are only noted."""

    accounts: Accounts
    network: Network
    root: bool
    workers: dict[str, str] = field(default_factory=dict)  # worker to what is wrong with it, remembered


@dataclass(slots=True)
class Scope:
    """One table of one file that is being converted: a service, `_DEFAULT` or `_SUPERVISOR`."""

    host: Host
    problems: Problems
    file: str
    name: str
    line: int
    node: Node

    def line_of(self, path: Path, known: int = 0) -> int:
        """The best line for `path`; `known` is that of the call that made the value."""
        line, exact = line_of(self.node, path)
        if known and not (exact and len(path) > 2):
            return known
        return line or self.line

    def bad(self, error: Bad, *path: str | int) -> None:
        """Add a problem; `path` leads from this table to where the error's own path begins."""
        whole = path + error.path
        where = f"{show(whole)}: " if whole else ""
        self.problems.add(self.file, self.line_of(whole, error.line), f"{self.name}: {where}{error.message}")

    def notice(self, message: str, *path: str | int) -> None:
        where = f"{show(path)}: " if path else ""
        self.problems.notice(self.file, self.line_of(path), f"{self.name}: {where}{message}")
