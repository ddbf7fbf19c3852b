"""Evaluates and checks definition files.  Runs in a short-lived child of spawnd: Lua and NSS stay there.

The child writes the records that `report` describes; whoever forked it ends it when it takes too long.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Sequence

from supervisor.definitions.accounts import Accounts
from supervisor.definitions.addresses import check_addresses
from supervisor.definitions.contents import Contents
from supervisor.definitions.digest import digest_of
from supervisor.definitions.files import Files, Source
from supervisor.definitions.implied import add_implied
from supervisor.definitions.lines import module_names, scan
from supervisor.definitions.lua import Lua, LuaProblem
from supervisor.definitions.netns.links import check_links
from supervisor.definitions.network import Network
from supervisor.definitions.order import check_order
from supervisor.definitions.problems import Problems, internal, place
from supervisor.definitions.report import Record, service_record, settings_record
from supervisor.definitions.scope import Host, Scope
from supervisor.definitions.service import Service
from supervisor.definitions.settings import SettingsReader

MAX_SERVICES = 10_000

Emit = Callable[[Record], object]


def write_report(
    paths: Sequence[str], out_fd: int, *, deadline_s: float, root: bool, digest: bool = False
) -> None:
    """Evaluate the files and folders `paths` and write the report to `out_fd`, which stays open.

    Each file has `deadline_s` seconds of CPU time for its Lua code, all together have `lua.AS_LONG` times
    that.  Where `root` is False no user is switched, and unknown users and groups are notices.
    `digest`: it has one of the definitions.
    """
    gc.disable()  # the process ends with this; collecting would only cost
    evaluate(paths, lambda record: _write(out_fd, record), deadline_s=deadline_s, root=root, digest=digest)


def _write(out_fd: int, record: Record) -> None:
    data = memoryview(json.dumps(record, separators=(",", ":")).encode() + b"\n")
    while data:
        data = data[os.write(out_fd, data) :]


def evaluate(paths: Sequence[str], emit: Emit, *, deadline_s: float, root: bool, digest: bool = False) -> None:
    """As `write_report`, each record to `emit`."""
    evaluation = Evaluation(emit, root=root)
    evaluation.load(paths, deadline_s)
    evaluation.check()
    evaluation.report(digest)


_TOO_MANY = f"cannot use: all definitions together have more than {MAX_SERVICES} services, of which this is the next"


class Evaluation:
    """All files: the services that they define, and everything that is wrong with them."""

    def __init__(self, emit: Emit, *, root: bool) -> None:
        self._emit = emit
        self._root = root
        self._problems = Problems()
        self._host = Host(Accounts(), Network(self._doing), root)
        self._settings = SettingsReader()
        self._sources: list[Source] = []
        self._services: dict[str, Service] = {}
        self._scopes: dict[str, Scope] = {}
        self._missing: set[str] = set()  # what files that cannot be evaluated seem to define
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
            except Exception as error:  # the other files are to be checked nevertheless
                self._problems.add(path, 0, internal(error))
                self._complete = False

    def _leave_out(self, paths: Sequence[str]) -> None:
        """Say what nobody has looked at, so that nobody takes it for good."""
        if paths:
            others = f", nor were {len(paths) - 1} files after it" if len(paths) > 1 else ""
            self._problems.add(paths[0], 0, f"was not evaluated, as those before it were too much{others}")

    def _evaluate(self, source: Source, lua: Lua) -> bool:
        """False where no other file can be evaluated."""
        self._sources.append(source)
        lines = scan(source.text)
        name = os.path.basename(source.path).removesuffix(".lua")
        try:
            evaluated = lua.evaluate(source.text, name)
        except LuaProblem as error:
            self._problems.add(source.path, error.line, str(error))
            self._missing.update(lines.named, module_names(source.text, name))
            self._complete = self._complete and not error.final
            return not error.final
        contents = Contents(source, lines, evaluated, self._host, self._problems)
        contents.settings(self._settings)
        for scope, service in contents.services():
            if len(self._services) == MAX_SERVICES:
                self._problems.add(scope.file, scope.line, f"{service.name}: {_TOO_MANY}")
                self._complete = False
                return False
            self._add(scope, service)
        self._missing.update(contents.broken)
        self._emit({"file": source.path})  # a host look-up of it has ended
        return True

    def _add(self, scope: Scope, service: Service) -> None:
        other = self._scopes.get(service.name)
        if other is not None:
            there = place(other.file, other.line)
            self._problems.add(scope.file, scope.line, f"{service.name}: is defined at {there} as well")
            return
        self._scopes[service.name] = scope
        self._services[service.name] = service

    def check(self) -> None:
        """What concerns several services."""
        missing = self._missing if self._complete else None
        self._guarded(lambda: add_implied(self._services, self._scopes))
        self._guarded(lambda: check_order(self._services, self._scopes, missing))
        self._guarded(lambda: check_addresses(self._services, self._scopes))
        self._guarded(lambda: check_links(self._services, self._scopes))

    def _guarded(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Exception as error:  # what else is wrong is to be reported nevertheless
            self._problems.add(self._sources[0].path, 0, internal(error))

    def report(self, digest: bool) -> None:
        for text in self._problems.texts():
            self._emit({"problem": text})
        if self._host.network.unavailable:
            self._emit({"passing": True})
        if not self._problems:
            for text in self._problems.notices():
                self._emit({"notice": text})
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
