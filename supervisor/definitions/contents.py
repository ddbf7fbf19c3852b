"""The globals of one file: services, network namespaces, `_DEFAULT` and `_SUPERVISOR`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from supervisor.definitions import services
from supervisor.definitions.convert.text import is_service_name
from supervisor.definitions.digest import digest_of_text
from supervisor.definitions.files import Source
from supervisor.definitions.lines import Constructor, Lines
from supervisor.definitions.lua import NAMES, Evaluated, Global, Module
from supervisor.definitions.modules import functions_of, keys_of, node_of
from supervisor.definitions.near import hint
from supervisor.definitions.netns import service_name
from supervisor.definitions.problems import Bad, Problems, internal
from supervisor.definitions.scope import Host, Scope
from supervisor.definitions.service import Service
from supervisor.definitions.services import Defaults
from supervisor.definitions.settings import SettingsReader
from supervisor.definitions.values import describe, table, tag

DEFAULTS, SETTINGS = "_DEFAULT", "_SUPERVISOR"
SPECIAL = (DEFAULTS, SETTINGS)
NETNS = "netns"
RESERVED = {"log": "the built-in log worker has it", "all": "spawnctl means every service by it"}


class Contents:
    """Converts what one file defines; what is wrong goes to `problems`."""

    def __init__(self, source: Source, lines: Lines, evaluated: Evaluated, host: Host, problems: Problems) -> None:
        self._source = source
        self._file = file = source.path
        self._lines = lines
        self._host = host
        self._problems = problems
        self._globals = evaluated.globals
        self._netns = evaluated.netns
        self._modules = evaluated.modules
        self.broken: list[str] = []  # services that could not be converted, through no fault of the file
        self._special = {item.name: item for item in evaluated.globals if item.name in SPECIAL}
        for line, text in evaluated.prints:
            problems.notice(file, line, f"print: {text}")
        for name, line in evaluated.undefined:
            problems.suspect(file, line, f"{name!r} is not defined, it is nil" + hint(name, NAMES))

    def settings(self, reader: SettingsReader) -> None:
        values, scope = self._special_table(SETTINGS)
        reader.add(values, scope)

    def services(self) -> Iterator[tuple[Scope, Service]]:
        """The services, each with the place that it is defined at."""
        raw, scope = self._special_table(DEFAULTS)
        defaults = Defaults(services.convert(raw, scope), {key: scope.line_of((key,)) for key in raw})
        for item in self._globals:
            if item.name not in SPECIAL and self._is_service(item):
                scope = self._scope(item)
                yield from self._guarded(scope, partial(services.of_table, table(item.value) or {}, defaults, scope))
        for module in self._modules:
            if self._is_module(module):
                scope = self._module_scope(module)
                yield from self._guarded(scope, partial(self._of_module, module, defaults, scope))
        yield from self._namespaces()

    def _namespaces(self) -> Iterator[tuple[Scope, Service]]:
        """The services that keep the network namespaces of the file, each with the place that it is defined at."""
        if not self._netns:
            return
        from supervisor.definitions.netns.namespace import namespace, wrong  # most hosts have none

        for item in self._netns:
            found = self._lines.entry(NETNS, str(item.name), item.line)
            reason = wrong(item)
            if reason:
                first = found.first if found and not item.before else item.line
                self._problems.add(self._file, first, reason)
                continue
            scope = self._scope_at(service_name(str(item.name)), item.line, found)
            yield from self._guarded(scope, partial(namespace, str(item.name), table(item.value) or {}, scope))

    def _guarded(self, scope: Scope, make: Callable[[], Service]) -> Iterator[tuple[Scope, Service]]:
        try:
            yield scope, make()
        except Exception as error:  # the others are to be checked nevertheless
            scope.bad(Bad(internal(error)))
            self.broken.append(scope.name)

    def _of_module(self, module: Module, defaults: Defaults, scope: Scope) -> Service:
        functions = functions_of(module, scope)
        text = digest_of_text(self._source.text) if functions else ""
        return services.of_module(keys_of(module, scope), functions, text, defaults, scope)

    def _module_scope(self, module: Module) -> Scope:
        node = node_of(module, self._lines)
        return Scope(self._host, self._problems, self._file, module.name, module.line, node)

    def _is_module(self, module: Module) -> bool:
        wrong = _taken(module.name)
        if wrong:
            self._problems.add(self._file, module.line, wrong)
        return not wrong

    def _special_table(self, name: str) -> tuple[dict[str, Any], Scope]:
        item = self._special.get(name)
        if item is None:
            return {}, Scope(self._host, self._problems, self._file, name, 0, {})
        scope = self._scope(item)
        values = table(item.value)
        if values is None:
            self._bad(item, f"{name} has to be a table with names, not {describe(item.value)}")
        return values or {}, scope

    def _scope(self, item: Global) -> Scope:
        """Where a global is defined, and its keys: written down, or else where it ran."""
        name = str(item.name)
        return self._scope_at(name, item.line, self._lines.find(name, item.line))

    def _scope_at(self, name: str, line: int, found: Constructor | None) -> Scope:
        if found is None:
            return Scope(self._host, self._problems, self._file, name, line, {})
        for key, first, second in found.twice:
            self._problems.add(self._file, second, f"{name}: key {key!r} is given twice, first on line {first}")
        return Scope(self._host, self._problems, self._file, name, found.first, found.node)

    def _is_service(self, item: Global) -> bool:
        """Whether a global can be a service; reported where not."""
        wrong = _wrong_value(item) or _wrong_name(str(item.name))
        if not wrong and item.before:
            wrong = f"{item.name}: is defined on line {item.before} as well"
        if wrong:
            self._bad(item, wrong)
        return not wrong

    def _bad(self, item: Global, message: str) -> None:
        found = self._lines.find(item.name, item.line) if isinstance(item.name, str) else None
        self._problems.add(self._file, found.first if found else item.line, message)


def _wrong_value(item: Global) -> str:
    """Why a global cannot be a service, going by its value; empty where it can."""
    name, value = item.name, item.value
    if not isinstance(name, str):
        return f"the name of a service has to be text, not {describe(name)}"
    if not isinstance(value, dict | list) or tag(value) not in ("", "pairs"):
        what = f"{name!r} is {describe(value)}, not a table: a service is a table"
        return f"{what}, anything else has to be local or have a name that begins with '_'"
    if table(value) is None:
        return f'{name}: every entry of a service has a name, like exec = "/usr/sbin/named"; one here has none'
    return ""


def _wrong_name(name: str) -> str:
    if name in NAMES:
        return f"{name!r} cannot be a service: it is a function or library of definitions"
    return _taken(name)


def _taken(name: str) -> str:
    """Why a service cannot have this name, however it is defined; empty where it can."""
    if name in RESERVED:
        return f"{name!r} cannot be the name of a service: {RESERVED[name]}"
    if not is_service_name(name):
        rule = "up to 64 of A-Z a-z 0-9 _ . @ -, the first one a letter, a digit or '_'"
        return f"{name!r} cannot be the name of a service: {rule}"
    return ""
