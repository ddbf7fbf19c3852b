"""Programs of files with sections, as supervisord and circus have them: their definitions and their order.

A program with several processes has a definition for each, and a group that stands for all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from importer.ini import Section, parse
from importer.ledger import Ledger
from importer.result import Comment, Definition, OutputFile, Result, SourceError, service_name
from importer.sources import read_source


@dataclass(slots=True)
class Sections:
    """Sections in the order of reading; `errors` are those of lines and files."""

    sections: list[Section] = field(default_factory=list)
    errors: list[SourceError] = field(default_factory=list)

    def parsed(self, path: str, inline: str) -> list[Section]:
        """Return the sections of a file, none if it cannot be read."""
        try:
            sections, errors = parse(path, read_source(path), inline)
        except SourceError as error:
            self.errors.append(error)
            return []
        self.errors += errors
        return sections


class Sources(Protocol):
    """What reads a main file and its includes."""

    sections: list[Section]
    errors: list[SourceError]

    def read(self, path: str, ledger: Ledger) -> None: ...


def convert_each(
    paths: Sequence[str], sources: Callable[[], Sources], convert: Callable[[Result, Ledger, list[Section]], object]
) -> Result:
    """Convert main files, each with what it includes; errors are in the order of the lines."""
    result = Result()
    ledger = Ledger(result)
    for path in paths:
        own = sources()
        own.read(path, ledger)
        result.errors += own.errors
        convert(result, ledger, own.sections)
    result.errors.sort(key=lambda error: (error.file, error.line))
    return result


@dataclass(slots=True)
class Program:
    """The definitions of a program; `handle` is the one that stands for all of them."""

    section: Section
    priority: int
    definitions: list[Definition] = field(default_factory=list)
    handle: str = ""


class Names:
    """Names of services and of files, each given once in a result."""

    def __init__(self, result: Result) -> None:
        self.services = {definition.name for file in result.files for definition in file.definitions}
        self._files = {os.path.splitext(file.name)[0] for file in result.files}

    def service(self, text: str) -> str:
        name = service_name(text, self.services)
        self.services.add(name)
        return name

    def file(self, text: str) -> str:
        name = service_name(text, self._files)
        self._files.add(name)
        return f"{name}.lua"


def written(program: Program, name: str, names: Names, of_several: bool) -> OutputFile:
    """Return the file of a program's definitions.

    Of several, the first one has the comments, and a group depends on all.
    """
    output = OutputFile(names.file(name), list(program.definitions))
    program.handle = program.definitions[0].name
    if of_several:
        for definition in program.definitions[1:]:
            definition.entries = [entry for entry in definition.entries if not isinstance(entry, Comment)]
        program.handle = names.service(name)
        output.definitions.append(together(program.handle, program.definitions))
    return output


def together(name: str, members: Sequence[Definition], handles: Sequence[str] = ()) -> Definition:
    """Return a group, which starts by itself only if all members do."""
    definition = Definition(name)
    definition.set("depends", list(handles) or [member.name for member in members])
    if any(member.keys.get("status") == "stop" for member in members):
        definition.set("status", "stop")
    return definition


def put_in_order(programs: Iterable[Program], ledger: Ledger, highest_first: bool) -> None:
    """Have programs start after those of the priority before theirs, where priorities are given."""
    every = list(programs)
    levels = sorted({program.priority for program in every}, reverse=highest_first)
    for program in every:
        entry = program.section.entries.get("priority")
        index = levels.index(program.priority)
        before = [each.handle for each in every if index and each.priority == levels[index - 1]]
        if entry and before:
            ledger.approximate(entry.directive, "an order by names, not by numbers", program.definitions[0])
        elif entry:
            ledger.carried(entry.directive)
        for definition in program.definitions:
            if before:
                definition.set("after", before[0] if len(before) == 1 else before)
