"""Ledger of the directives of a source: a finding for each, and comments in the definitions."""

from __future__ import annotations

from dataclasses import dataclass, field

from importer.result import Definition, Finding, Outcome, OutputFile, Result

_WORSE = {Outcome.CARRIED: 0, Outcome.APPROXIMATE: 1, Outcome.LEFT_OUT: 2}


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive, as it is written on a line of a file."""

    file: str
    line: int
    text: str


@dataclass(slots=True)
class Ledger:
    """Adds findings to a result. A directive that counts for several services has the worst of its fates."""

    result: Result
    _index: dict[Directive, int] = field(default_factory=dict)

    def carried(self, directive: Directive) -> None:
        self._add(directive, Outcome.CARRIED, "")

    def approximate(self, directive: Directive, text: str, where: Definition | OutputFile | None) -> None:
        """Say how the result differs, in the findings and in a comment, if there is a place for one."""
        _comment(where, self._add(directive, Outcome.APPROXIMATE, text))

    def left_out(self, directive: Directive, text: str, where: Definition | OutputFile | None) -> None:
        """Say why there is no equivalent, in the findings and in a comment, if there is a place for one."""
        _comment(where, self._add(directive, Outcome.LEFT_OUT, text))

    def _add(self, directive: Directive, outcome: Outcome, text: str) -> Finding:
        finding = Finding(directive.file, directive.line, directive.text, outcome, text)
        index = self._index.get(directive)
        if index is None:
            self._index[directive] = len(self.result.findings)
            self.result.findings.append(finding)
        elif _WORSE[outcome] > _WORSE[self.result.findings[index].outcome]:
            self.result.findings[index] = finding
        return finding


def _comment(where: Definition | OutputFile | None, finding: Finding) -> None:
    if isinstance(where, Definition):
        where.note(finding.comment())
    elif where is not None:
        where.comments.append(finding.comment())
