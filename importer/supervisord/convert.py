"""`spawnctl import supervisord`: a definition for each process of a program."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence

from importer.ini import Entry, Section
from importer.ledger import Ledger
from importer.programs import Names, Program, convert_each, put_in_order, together, written
from importer.result import Definition, OutputFile, Result, SourceError
from importer.supervisord.files import Sources, expand
from importer.supervisord.process import Common, Process
from importer.supervisord.program import keys

PROGRAMS = ("program", "fcgi-program")
MOST = 1000  # processes of a program
PRIORITY = 999
_OF_ALL = {"minfds": "nofile", "minprocs": "nproc"}
_OWN = {
    "unix_http_server": "spawnctl has a socket of its own",
    "inet_http_server": "spawnd has no socket of the network",
    "supervisorctl": "spawnctl needs no settings",
    "ctlplugin": "spawnctl has no plugins",
    "rpcinterface": "spawnd has no XML-RPC",
}

_Convert = Callable[[Section], OutputFile | None]


def convert(paths: Sequence[str]) -> Result:
    """Convert files like /etc/supervisor/supervisord.conf, with what they include."""
    return convert_each(paths, Sources, _Conversion)


class _Conversion:
    """Converts the sections of a main file and of what it includes."""

    def __init__(self, result: Result, ledger: Ledger, sections: list[Section]) -> None:
        self._result = result
        self._ledger = ledger
        self._names = Names(result)
        self._groups = _members(sections)
        self._environment: Mapping[str, str | int] = {f"ENV_{name}": value for name, value in os.environ.items()}
        self._settings = OutputFile(self._names.file("supervisord"))  # comments about settings of supervisord itself
        self._common = self._of_all([section for section in sections if section.name == "supervisord"])
        self._programs: dict[str, Program] = {}
        files: dict[str, OutputFile | None] = {}
        for section in sections:
            if section.name.partition(":")[0] in PROGRAMS:
                files[section.name] = self._guarded(section, self._program)
        for section in sections:
            kind = section.name.partition(":")[0]
            if kind not in PROGRAMS:
                files[section.name] = self._guarded(section, self._group if kind == "group" else self._other)
        put_in_order(self._programs.values(), ledger, highest_first=False)
        result.files += [self._settings] if self._settings.comments else []
        result.files += [file for section in sections if (file := files[section.name]) is not None]

    def _guarded(self, section: Section, convert: _Convert) -> OutputFile | None:
        try:
            return convert(section)
        except SourceError as error:
            self._result.errors.append(error)
            return None

    # programs

    def _program(self, section: Section) -> OutputFile:
        name = section.name.partition(":")[2].strip()
        self._ledger.carried(section.directive)
        probe = Process(section, self._environment, self._common, self._ledger, Definition(name))
        numprocs, first = probe.integer("numprocs", 1), probe.integer("numprocs_start", 0)
        if not 1 <= numprocs <= MOST:
            raise probe.error("numprocs", f"a number from 1 to {MOST} expected")
        if numprocs > 1 and "%(process_num)" not in _written(section, "process_name"):
            raise probe.error("process_name", "%(process_num) is missing, and there are several processes")
        program = Program(section, probe.integer("priority", PRIORITY))
        for number in range(first, first + numprocs):
            if number > first and "socket" in section.entries:
                directive = section.entries["numprocs"].directive
                self._ledger.left_out(directive, "one process has the socket", program.definitions[0])
                break
            program.definitions.append(self._process(section, name, number, numprocs))
        self._programs[name] = program
        return written(program, name, self._names, of_several=len(program.definitions) > 1)

    def _process(self, section: Section, program: str, number: int, numprocs: int) -> Definition:
        values: dict[str, str | int] = {
            **self._environment,
            "program_name": program,
            "process_num": number,
            "numprocs": numprocs,
            "group_name": self._groups.get(program, program),
        }
        name = program
        if entry := section.entries.get("process_name"):
            name = expand(entry, values)
            name = name if program in name else f"{program}_{name}"
        definition = Definition(self._names.service(name))
        keys(Process(section, values, self._common, self._ledger, definition))
        return definition

    # other sections

    def _group(self, section: Section) -> OutputFile:
        name = section.name.partition(":")[2].strip()
        entry = section.entries.get("programs")
        if entry is None:
            raise _error(section, "'programs' is missing")
        members: list[Definition] = []
        handles = []
        for program in _words(entry):
            if program not in self._programs:
                raise SourceError(entry.directive.file, entry.directive.line, f"programs: no program {program!r}")
            members += self._programs[program].definitions
            handles.append(self._programs[program].handle)
        self._ledger.carried(section.directive)
        self._ledger.carried(entry.directive)
        definition = together(
            self._names.service(name if name not in self._names.services else f"{name}_group"), members, handles
        )
        for other in section.entries.values():
            if other is not entry:
                text = (
                    "the priorities of programs count" if other.name == "priority" else "supervisord does not have it"
                )
                self._ledger.left_out(other.directive, text, definition)
        return OutputFile(self._names.file(definition.name), [definition])

    def _other(self, section: Section) -> OutputFile | None:
        kind, _, name = section.name.partition(":")
        if kind == "supervisord":
            return None
        if kind == "eventlistener":
            output = OutputFile(self._names.file(name))
            text = "there are no events; a program reads 'spawnctl monitor --json'"
            self._ledger.left_out(section.directive, text, output)
        else:
            output = None
            self._ledger.left_out(section.directive, _OWN.get(kind, "supervisord does not have it"), self._settings)
        for entry in section.entries.values():
            self._ledger.left_out(entry.directive, "", None)
        return output

    def _of_all(self, sections: list[Section]) -> Common:
        """Return what supervisord's own section says about all programs."""
        common = Common()
        for section in sections:
            self._ledger.carried(section.directive)
            process = Process(section, self._environment, common, self._ledger, Definition("supervisord"))
            environment: dict[str, str] = {}
            try:
                limits = {key: process.integer(name, 0) for name, key in _OF_ALL.items() if name in section.entries}
                environment = process.variables("environment")
                directory = process.text("directory")
                common = Common(
                    process.text("user", "root"), process.text("umask", "022"), directory, limits, environment
                )
            except SourceError as error:
                self._result.errors.append(error)
            self._environment = {**self._environment, **{f"ENV_{name}": text for name, text in environment.items()}}
            for name, entry in section.entries.items():
                if name in ("user", "umask", "directory", "environment", *_OF_ALL):
                    self._ledger.carried(entry.directive)
                else:
                    self._ledger.left_out(entry.directive, "it is about supervisord itself", self._settings)
        return common


def _members(sections: list[Section]) -> dict[str, str]:
    """Return the group of each program that is in one."""
    found = {}
    for section in sections:
        kind, _, name = section.name.partition(":")
        if kind == "group" and (entry := section.entries.get("programs")):
            found.update(dict.fromkeys(_words(entry), name.strip()))
    return found


def _words(entry: Entry) -> list[str]:
    return [word for word in re.split(r"[,\s]+", entry.value) if word]


def _written(section: Section, name: str) -> str:
    entry = section.entries.get(name)
    return entry.value if entry else ""


def _error(section: Section, text: str) -> SourceError:
    return SourceError(section.directive.file, section.directive.line, text)
