"""Evaluates and checks definition files, in a short-lived child of spawnd that contains Lua and NSS.

The child writes the records described in `report`; its parent kills a child that takes too long.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from supervisor.definitions.checking import Checking, first_local, first_return, module_names, scan, unused_specials
from supervisor.definitions.collisions import check_addresses, check_sharing
from supervisor.definitions.databases import Accounts, Databases, Network
from supervisor.definitions.definition_file import SPECIAL, DefinitionFile, SettingsReader
from supervisor.definitions.files import Files, Source
from supervisor.definitions.lua import Lua, LuaProblem
from supervisor.definitions.netns.overlaps import check_host_addresses, check_links
from supervisor.definitions.order import add_implied_dependencies, check_order
from supervisor.definitions.problems import Problems, did_you_mean, internal, place
from supervisor.definitions.report import Record, service_record, settings_record
from supervisor.definitions.service import Service
from supervisor.printable import count

MAX_SERVICES = 10_000

Emit = Callable[[Record], object]

_GLOBAL = "a service is a global"
_TOO_MANY = f"cannot use: all definitions together have more than {MAX_SERVICES} services, of which this is the next"
# places, and a digest that differs with each evaluation where an upvalue is the time
NOT_COUNTED = frozenset({"file", "line", "lines", "functions_digest"})
SETTINGS_PLACE = "places"
OUTPUTS = ("stdout", "stderr")


def write_report(
    paths: Sequence[str], out_fd: int, *, deadline_s: float, root: bool, digest: bool = False, programs: bool = False
) -> None:
    """Evaluate the files and folders `paths` and write the report to `out_fd`, which stays open.

    Each file has `deadline_s` seconds of CPU time for its Lua code, all together have `lua.AS_LONG` times
    that. If `root` is False, no user is switched, and unknown users and groups are only noted. `digest`: the
    report gets a digest of the definitions. `programs`: programs are searched. Their file systems may hang,
    so the report is complete before the search, and the notices follow.
    """
    gc.disable()  # the process ends afterwards, so collecting only costs time
    emit = partial(_write, out_fd)
    evaluate(paths, emit, deadline_s=deadline_s, root=root, digest=digest, programs=programs)


def _write(out_fd: int, record: Record) -> None:
    data = memoryview(json.dumps(record, separators=(",", ":")).encode() + b"\n")
    while data:
        data = data[os.write(out_fd, data) :]


def evaluate(
    paths: Sequence[str], emit: Emit, *, deadline_s: float, root: bool, digest: bool = False, programs: bool = False
) -> None:
    """Do the same as `write_report`, with each record passed to `emit`."""
    evaluation = Evaluation(emit, root=root)
    evaluation.load(paths, deadline_s)
    evaluation.check(paths)
    evaluation.report(digest)
    if programs:
        evaluation.check_programs()


class Evaluation:
    """All files: the services that they define, and all problems in them."""

    def __init__(self, emit: Emit, *, root: bool) -> None:
        self._emit = emit
        self._root = root
        self._problems = Problems()
        self._databases = Databases(Accounts(), Network(self._doing), root)
        self._settings = SettingsReader()
        self._sources: list[Source] = []
        self._services: dict[str, Service] = {}
        self._checkings: dict[str, Checking] = {}
        self._missing: set[str] = set()  # services apparently defined in files that cannot be evaluated
        self._complete = True

    def _doing(self, at: str, doing: str) -> None:
        self._emit({"at": at, "doing": doing})

    def load(self, paths: Sequence[str], deadline_s: float) -> None:
        """Read, evaluate and convert every file."""
        files = Files(self._problems, root=self._root)
        found = files.expand(paths)
        self._complete = not self._problems
        if not found:
            return
        lua = Lua(deadline_s)
        for number, path in enumerate(found, 1):
            self._emit({"file": path})
            try:
                source = files.read(path)
                if source is None:
                    self._complete = False
                elif not self._evaluate(source, lua):
                    self._leave_out(found[number:])
                    break
            except Exception as error:  # the other files have to be checked nevertheless
                self._problems.add(path, 0, internal(error))
                self._complete = False

    def _leave_out(self, paths: Sequence[str]) -> None:
        """Report files that were not evaluated, so that they are not taken for correct."""
        if paths:
            others = f", nor any of the {count(len(paths) - 1, 'file')} after it" if len(paths) > 1 else ""
            self._problems.add(paths[0], 0, f"was not evaluated, as those before it were too much{others}")

    def _evaluate(self, source: Source, lua: Lua) -> bool:
        """Evaluate one file. Return False if no more files can be evaluated."""
        self._sources.append(source)
        lines = scan(source.text)
        name = os.path.basename(source.path).removesuffix(".lua")
        try:
            evaluated = lua.evaluate(source.text, name)
        except LuaProblem as error:
            from supervisor.definitions.synonyms import syntax  # only an error needs it

            self._problems.add(source.path, error.line, f"{error}{syntax(source.text, error.line, str(error))}")
            self._missing.update(lines.named, module_names(source.text, name))
            self._complete = self._complete and not error.final
            return not error.final
        contents = DefinitionFile(source, lines, evaluated, self._databases, self._problems)
        contents.settings(self._settings)
        for checking, service in contents.services():
            if len(self._services) == MAX_SERVICES:
                self._problems.add(checking.file, checking.line, f"{service.name}: {_TOO_MANY}")
                self._complete = False
                return False
            self._add(checking, service)
        self._missing.update(contents.broken)
        self._emit({"file": source.path})  # ends the host look-up that was reported
        return True

    def _add(self, checking: Checking, service: Service) -> None:
        other = self._checkings.get(service.name)
        if other is not None:
            there = place(other.file, other.line)
            self._problems.add(checking.file, checking.line, f"{service.name}: is defined at {there} as well")
            return
        self._checkings[service.name] = checking
        self._services[service.name] = service

    def check(self, paths: Sequence[str]) -> None:
        """Check the services together."""
        if not self._problems:
            self._note_empty(paths)
        missing = self._missing if self._complete else None
        self._guarded(lambda: add_implied_dependencies(self._services, self._checkings))
        self._guarded(lambda: check_order(self._services, self._checkings, missing))
        self._guarded(lambda: check_addresses(self._services, self._checkings))
        self._guarded(lambda: check_links(self._services, self._checkings))
        self._guarded(lambda: check_host_addresses(self._services, self._checkings))
        self._guarded(lambda: check_sharing(self._services, self._checkings))

    def _note_empty(self, paths: Sequence[str]) -> None:
        """Note folders and files that define nothing, which is hardly intended."""
        files = {checking.file for checking in self._checkings.values()}
        for path in paths:
            if os.path.isdir(path) and path not in map(os.path.dirname, files):
                self._problems.notice(path, 0, "defines no services: they are in files named *.lua")
        for source in self._sources:
            if source.path not in files:
                self._note_hidden(source)
            for name, line in unused_specials(source.text):
                if name not in SPECIAL and (meant := did_you_mean(name, SPECIAL)):
                    self._problems.notice(source.path, line, f"{name!r} is the file's own, and means nothing{meant}")

    def _note_hidden(self, source: Source) -> None:
        """Note tables that look like services but are none, in a file that defines none."""
        if local := first_local(source.text):
            name, line = local
            self._problems.notice(source.path, line, f"{name!r} is local, and no service: {_GLOBAL}, without 'local'")
        elif line := first_return(source.text):
            self._problems.notice(source.path, line, f"the returned table has no effect: {_GLOBAL}")

    def check_programs(self) -> None:
        """Report faults of programs, at the end: programs may change until a start, so no start depends on this."""
        from supervisor.definitions.programs import check_programs, own_problem  # a start does without

        if self._problems:
            return
        if text := own_problem():
            self._notice(text)
        told = self._problems.notices()
        check_programs(self._services, self._checkings)
        for text in self._problems.notices():
            if text not in told:
                self._notice(text)
        self._emit({"looked": True})

    def _notice(self, text: str) -> None:
        self._emit({"notice": text, "about": self._problems.compared(text)})

    def _guarded(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Exception as error:  # other problems have to be reported nevertheless
            self._problems.add(self._sources[0].path, 0, internal(error))

    def report(self, digest: bool) -> None:
        for text in self._problems.texts():
            self._emit({"problem": text})
        if self._databases.network.unavailable:
            self._emit({"passing": True})
        if not self._problems:
            for text in self._problems.notices():
                self._notice(text)
            for source in self._sources:
                self._emit({"source": source.path, "text": source.text})
            services = [service_record(service) for service in self._services.values()]
            for record in services:
                self._emit({"service": record})
            settings = settings_record(self._settings.settings())
            self._emit({"settings": settings})
            if digest:
                self._emit({"digest": digest_of(services, settings)})
        self._emit({"end": True})


def digest_of(services: Iterable[Record], settings: Record) -> str:
    """Return the SHA-256, in hex, of services in their order and of settings, without their places in files."""
    from hashlib import sha256  # takes a while to import

    digest = sha256()
    for record in services:
        kept = {key: value for key, value in record.items() if key not in NOT_COUNTED}
        if "worker" in record:  # the presence of the keys counts: without them, a worker shares spawnd's log
            kept["lines"] = [key for key in OUTPUTS if key in record.get("lines", ())]
        digest.update(_canonical(kept))
    digest.update(_canonical({key: value for key, value in settings.items() if key != SETTINGS_PLACE}))
    return digest.hexdigest()


def _canonical(record: Record) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"
