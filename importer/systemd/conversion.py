"""One service while it is converted: its unit, its definition so far, and the fates of its directives."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from importer.result import Definition, Finding, Outcome, Result
from importer.systemd.specifiers import names_host
from importer.systemd.steps import Step
from importer.systemd.unit_file import Entry
from importer.systemd.units import Unit
from importer.values import Value
from supervisor.definitions.service import KEYS

# keys that a process for each connection cannot have
NOT_FOR_SESSIONS = frozenset(
    "stdin stdout ready watchdog fdstore_max task control forking pid_file handover_signal reload_signal idle_stop "
    "kill_mode success_status no_restart_status restart start_limit backoff".split()
)
ABOUT_PROCESS = frozenset(name for name, key in KEYS.items() if key.about_process) | {"stdin", "stdout", "stderr"}
OF_GROUP = frozenset({"description", "depends", "after", "conflicts", "status"})


class Shape(StrEnum):
    """Form of a definition."""

    PROGRAM = "a program"
    SESSIONS = "a process for each connection"
    STEPS = "functions without a process"
    GROUP = "a group"


class Conversion:
    """Collects a definition. `before_start`, `after_stop` and `at_reload` are the steps of its functions."""

    def __init__(self, unit: Unit, definition: Definition, shape: Shape, result: Result) -> None:
        self.unit = unit
        self.definition = definition
        self.shape = shape
        self.before_start: list[Step] = []
        self.after_stop: list[Step] = []
        self.at_reload: list[Step] = []
        self.silent: set[str] = set()  # outputs that go nowhere, as they do without a key
        self._result = result

    # findings

    def found(self, entry: Entry, outcome: Outcome, text: str = "") -> None:
        """Record the fate of a directive; a comment stands for one that is not carried over as it is."""
        finding = Finding(entry.file, entry.line, entry.directive, outcome, text)
        self._result.findings.append(finding)
        if outcome is not Outcome.CARRIED:
            self.definition.note(finding.comment())

    def carried(self, entries: Sequence[Entry], text: str = "") -> None:
        for entry in entries:
            if names_host(entry.value) and entry.section != "Install":
                self.found(entry, Outcome.APPROXIMATE, text or "with the values of this host")
            else:
                self.found(entry, Outcome.CARRIED, text)

    def approximate(self, entries: Sequence[Entry], text: str) -> None:
        for entry in entries:
            self.found(entry, Outcome.APPROXIMATE, text)

    def left_out(self, entries: Sequence[Entry], text: str = "") -> None:
        for entry in entries:
            self.found(entry, Outcome.LEFT_OUT, text)

    # keys

    def allows(self, name: str) -> bool:
        """Whether a definition of this form can have a key."""
        match self.shape:
            case Shape.SESSIONS:
                return name not in NOT_FOR_SESSIONS
            case Shape.STEPS:
                return name not in ABOUT_PROCESS
            case Shape.GROUP:
                return name in OF_GROUP
            case Shape.PROGRAM:
                return True

    def key(self, entries: Sequence[Entry], name: str, value: Value, text: str = "") -> None:
        """Set a key for directives: exactly, or approximately if `text` says how it differs."""
        if not self.allows(name):
            self.left_out(entries, f"{name!r} does not go with {self.shape}")
            return
        if text:
            self.approximate(entries, text)
        else:
            self.carried(entries)
        self.definition.set(name, value)

    def part(self, entries: Sequence[Entry], name: str, part: str, value: Value, text: str = "") -> None:
        """Set an entry of a key that is a table."""
        known = self.definition.keys.get(name)
        table = dict(known) if isinstance(known, dict) else {}
        table[part] = value
        self.key(entries, name, table, text)

    def add(self, name: str, values: Sequence[Value]) -> None:
        """Add values to a key that is a list, without a fate; those that are there already are not repeated."""
        known = self.definition.keys.get(name)
        items = list(known) if isinstance(known, list) else []
        items += [value for value in dict.fromkeys(values) if value not in items]
        self.definition.set(name, items)

    def default(self, name: str, value: Value) -> None:
        """Set a key that no directive has set, if this form of definition can have it."""
        if self.lacks(name) and self.allows(name):
            self.definition.set(name, value)

    def lacks(self, name: str) -> bool:
        """Whether nothing has decided on a key."""
        return name not in self.definition.keys and name not in self.silent

    def has(self, name: str) -> bool:
        return name in self.definition.keys
