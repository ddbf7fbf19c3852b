"""Evaluates and checks definition files, in a short-lived child of spawnd that contains Lua and NSS.

The child writes the records described in `report`; its parent kills a child that takes too long.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

from supervisor.definitions.checking import (
    Checking,
    Node,
    first_local,
    first_return,
    module_names,
    scan,
    unused_specials,
)
from supervisor.definitions.collisions import check_addresses, check_sharing
from supervisor.definitions.databases import Accounts, Databases, Network
from supervisor.definitions.definition_file import SPECIAL, DefinitionFile, SettingsReader
from supervisor.definitions.files import Files, Source
from supervisor.definitions.lua import Lua, LuaProblem
from supervisor.definitions.netns.overlaps import check_host_addresses, check_links
from supervisor.definitions.order import add_implied_dependencies, check_order, namespaces
from supervisor.definitions.problems import Path, Problems, did_you_mean, internal, place
from supervisor.definitions.report import NOTHING, Record, service_record, settings_record
from supervisor.definitions.service import Definitions, KeptFile, Service
from supervisor.printable import count

MAX_SERVICES = 10_000

Emit = Callable[[Record], object]

_GLOBAL = "a service is a global"
_TOO_MANY = f"cannot use: all definitions together have more than {MAX_SERVICES} services, of which this is the next"
# places, and a digest that differs with each evaluation where an upvalue is the time
NOT_COUNTED = frozenset({"file", "line", "lines", "functions_digest"})
SETTINGS_PLACE = "places"
OUTPUTS = ("stdout", "stderr")
DIGEST = 16  # bytes of a service in the digests of a file
AT_ONCE = 1 << 16  # bytes of services that are written together


def write_report(
    paths: Sequence[str],
    out_fd: int,
    *,
    deadline_s: float,
    root: bool,
    digest: bool = False,
    programs: bool = False,
    before: Definitions = NOTHING,
) -> None:
    """Evaluate the files and folders `paths` and write the report to `out_fd`, which stays open.

    Each file has `deadline_s` seconds of CPU time for its Lua code, all together have `lua.AS_LONG` times
    that. If `root` is False, no user is switched, and unknown users and groups are only noted. `digest`: the
    report gets a digest of the definitions. `programs`: programs are searched. Their file systems may hang,
    so the report is complete before the search, and the notices follow. `before` has the kept files of an earlier
    evaluation, which are only evaluated if something has changed, and the services in force, of which only the names
    are reported.
    """
    gc.disable()  # the process ends afterwards, so collecting only costs time
    emit = _Writer(out_fd).write
    evaluate(paths, emit, deadline_s=deadline_s, root=root, digest=digest, programs=programs, before=before)


class _Writer:
    """Writes records; those of services together, as the end of the report follows at once."""

    def __init__(self, out_fd: int) -> None:
        self._out_fd = out_fd
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, record: Record) -> None:
        line = json.dumps(record, separators=(",", ":")).encode()
        self._waiting.append(line)
        self._size += len(line)
        if self._size < AT_ONCE and ("service" in record or "same" in record):
            return
        data = memoryview(b"\n".join([*self._waiting, b""]))
        self._waiting, self._size = [], 0
        while data:
            data = data[os.write(self._out_fd, data) :]


def evaluate(
    paths: Sequence[str],
    emit: Emit,
    *,
    deadline_s: float,
    root: bool,
    digest: bool = False,
    programs: bool = False,
    before: Definitions = NOTHING,
) -> None:
    """Do the same as `write_report`, with each record passed to `emit`."""
    evaluation = Evaluation(emit, before, deadline_s, root=root)
    evaluation.load(paths)
    evaluation.check(paths)
    evaluation.report(digest)
    if programs:
        evaluation.check_programs()


@dataclass(slots=True)
class KeptChecking(Checking):
    """The table of a service in a kept file. `find` returns the lines, which only few problems and notices need."""

    find: Callable[[], Node]

    def line_of(self, path: Path, known: int = 0) -> int:
        if path and not self.node:
            self.node = self.find()
        return Checking.line_of(self, path, known)


class Checkings(dict[str, Checking]):
    """The tables of services; those of kept files are made with `make` when they are asked for."""

    def __init__(self, make: Callable[[str], Checking]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> Checking:
        self[name] = made = self._make(name)
        return made


class Evaluation:
    """All files: the services that they define, and all problems in them. `before` as in `write_report`."""

    def __init__(self, emit: Emit, before: Definitions, deadline_s: float, *, root: bool) -> None:
        self._emit = emit
        self._before = before
        self._deadline_s = deadline_s
        self._root = root
        self._problems = Problems()
        self._databases = Databases(Accounts(), Network(self._doing), root)
        self._settings = SettingsReader()
        self._sources: list[Source] = []
        self._services: dict[str, Service] = {}
        self._checkings = Checkings(self._checking_of_kept)
        self._unchanged: dict[str, KeptFile] = {}
        self._keepable: dict[str, KeptFile] = {}
        self._nodes: dict[str, dict[str, Node]] = {}  # the lines of kept files, as far as they were needed
        self._missing: set[str] = set()  # services apparently defined in files that cannot be evaluated
        self._complete = True

    def _doing(self, at: str, doing: str) -> None:
        self._emit({"at": at, "doing": doing})

    @cached_property
    def _lua(self) -> Lua:
        return Lua(self._deadline_s)

    def load(self, paths: Sequence[str]) -> None:
        """Read every file; evaluate and convert those that are not kept."""
        files = Files(self._problems, root=self._root)
        found = files.expand(paths)
        self._complete = not self._problems
        for number, path in enumerate(found, 1):
            self._emit({"file": path})
            try:
                source = files.read(path)
                if source is None:
                    self._complete = False
                elif not self._keep(source) and not self._evaluate(source):
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

    def _keep(self, source: Source) -> bool:
        """Take the services of a file from an earlier evaluation. Return False if the file has to be evaluated."""
        kept = self._before.kept.get(source.path)
        if kept is None or kept.text != hash(source.text):
            return False
        if not self._databases.agree(json.loads(kept.asked), place(source.path, 0)):
            return False
        if len(self._services) + len(kept.services) > MAX_SERVICES:
            return False
        if any(service.name in self._services for service in kept.services):
            return False
        self._sources.append(source)
        self._unchanged[source.path] = kept
        self._problems.tell_again(kept.notices)
        self._services.update((service.name, service) for service in kept.services)
        return True

    def _checking_of_kept(self, name: str) -> Checking:
        service = self._services[name]
        find = partial(self._lines_of_kept, service.file, name)
        return KeptChecking(self._databases, self._problems, service.file, name, service.line, {}, find)

    def _lines_of_kept(self, path: str, name: str) -> Node:
        """Return the lines of a service in a kept file; none if the file cannot be evaluated for want of time."""
        if path not in self._nodes:
            self._nodes[path] = {}
            source = next(source for source in self._sources if source.path == path)
            with suppress(LuaProblem):
                evaluated = self._lua.evaluate(source.text, _own_name(path))
                contents = DefinitionFile(source, scan(source.text), evaluated, self._databases, Problems())
                self._nodes[path] = {service.name: checking.node for checking, service in contents.services()}
        return self._nodes[path].get(name, {})

    def _evaluate(self, source: Source) -> bool:
        """Evaluate one file. Return False if no more files can be evaluated."""
        self._sources.append(source)
        told = self._problems.told()
        self._databases.take_asked()
        lines = scan(source.text)
        name = _own_name(source.path)
        try:
            evaluated = self._lua.evaluate(source.text, name)
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
        if contents.can_be_kept:
            asked = json.dumps([[question, answer] for question, answer in self._databases.take_asked().items()])
            notices = tuple(self._problems.since(told))
            self._keepable[source.path] = KeptFile(hash(source.text), asked, notices)
        self._emit({"file": source.path})  # ends the host look-up that was reported
        return True

    def _add(self, checking: Checking, service: Service) -> None:
        if service.name in self._services:
            other = self._checkings[service.name]
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
        files = {service.file for service in self._services.values()}
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
            of_file: dict[str, list[Service]] = {source.path: [] for source in self._sources}
            for service in self._services.values():
                of_file[service.file].append(service)
            digests = [self._report_file(source, of_file[source.path], digest) for source in self._sources]
            settings = settings_record(self._settings.settings())
            self._emit({"settings": settings})
            if digest:
                self._emit({"digest": digest_of(digests, settings)})
        self._emit({"end": True})

    def _report_file(self, source: Source, services: list[Service], digest: bool) -> str:
        """Report the services of a file, and return their digests, '' unless requested."""
        unchanged = self._unchanged.get(source.path)
        if unchanged is None or any(service.source_digest for service in services):
            self._emit({"source": source.path, "text": source.text})
        if unchanged is not None:
            new = digests_of(map(service_record, services)) if digest and not unchanged.digests else ""
            self._emit({"unchanged": source.path, "digests": new})
            return unchanged.digests or new
        records = list(map(service_record, services))
        for service, record in zip(services, records, strict=True):
            self._emit({"same": service.name} if self._is_in_force(service) else {"service": record})
        digests = digests_of(records) if digest else ""
        keepable = self._keepable.get(source.path)
        if keepable is not None and not any(True for service in services for _name in namespaces(service)):
            kept = {"text": keepable.text, "asked": keepable.asked, "notices": keepable.notices, "digests": digests}
            self._emit({"kept": kept, "file": source.path})
        return digests

    def _is_in_force(self, service: Service) -> bool:
        """Whether a service is in force as it is, down to its lines; not if it has free data, where 1 equals true."""
        known = self._before.services.get(service.name)
        return known is not None and not service.options and known == service and known.lines == service.lines


def _own_name(path: str) -> str:
    """Return the value of `...` in a file."""
    return os.path.basename(path).removesuffix(".lua")


def digests_of(services: Iterable[Record]) -> str:
    """Return a digest of each service without its place in files, one after the other, as characters below U+0100."""
    from hashlib import sha256  # takes a while to import

    digests = []
    for record in services:
        counted = {key: value for key, value in record.items() if key not in NOT_COUNTED}
        if "worker" in record:  # the presence of the keys counts: without them, a worker shares spawnd's log
            counted["lines"] = [key for key in OUTPUTS if key in record.get("lines", ())]
        digests.append(sha256(_canonical(counted)).digest()[:DIGEST])
    return b"".join(digests).decode("latin-1")


def digest_of(digests: Iterable[str], settings: Record) -> str:
    """Return the SHA-256, in hex, of services by their digests in order, and of settings without their places."""
    from hashlib import sha256

    digest = sha256("".join(digests).encode("latin-1"))
    digest.update(_canonical({key: value for key, value in settings.items() if key != SETTINGS_PLACE}))
    return digest.hexdigest()


def _canonical(record: Record) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"
