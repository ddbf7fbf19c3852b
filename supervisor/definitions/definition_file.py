"""The globals and modules of one file: services, network namespaces, `_DEFAULT` and `_SUPERVISOR`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from supervisor.definitions import services
from supervisor.definitions.checking import Checking, Constructor, Lines, Node
from supervisor.definitions.convert import access, plain
from supervisor.definitions.databases import Databases
from supervisor.definitions.files import Source
from supervisor.definitions.lua import NAMES, Evaluated, Function, Global, Module, missing
from supervisor.definitions.netns import service_name
from supervisor.definitions.problems import InvalidValue, Problems, did_you_mean, internal, place
from supervisor.definitions.service import Service, Settings
from supervisor.definitions.services import Defaults
from supervisor.definitions.values import describe, is_service_name, table, tag

DEFAULTS, SETTINGS = "_DEFAULT", "_SUPERVISOR"
SPECIAL = (DEFAULTS, SETTINGS)
NETNS = "netns"
RESERVED = {"log": "the built-in log worker has it", "all": "spawnctl means every service by it"}

FUNCTIONS = ("start", "stop", "restart", "reload", "status")
BOTH = ("restart", "status")  # these are keys as well


class DefinitionFile:
    """Converts the definitions of one file; problems go to `problems`."""

    def __init__(
        self, source: Source, lines: Lines, evaluated: Evaluated, databases: Databases, problems: Problems
    ) -> None:
        self._source = source
        self._file = file = source.path
        self._lines = lines
        self._databases = databases
        self._problems = problems
        self._globals = evaluated.globals
        self._netns = evaluated.netns
        self._modules = evaluated.modules
        self._is_fleeting = evaluated.reads_clock or bool(evaluated.undefined or evaluated.netns)
        self.broken: list[str] = []  # services whose conversion failed by an internal error
        self._special = {item.name: item for item in evaluated.globals if item.name in SPECIAL}
        for line, text in evaluated.prints:
            problems.notice(file, line, f"print: {text}")
        for name, line in evaluated.undefined:
            problems.suspect(file, line, f"{name!r} is not defined, it is nil" + missing(name))

    @property
    def can_be_kept(self) -> bool:
        """Whether the same text means the same services tomorrow, and nothing but these, while the databases agree."""
        return not self._is_fleeting and SETTINGS not in self._special and not self.broken

    def settings(self, reader: SettingsReader) -> None:
        values, checking = self._special_table(SETTINGS)
        reader.add(values, checking)

    def services(self) -> Iterator[tuple[Checking, Service]]:
        """Yield the services, each with the table that it is defined in."""
        raw, checking = self._special_table(DEFAULTS)
        defaults = Defaults(services.convert(raw, checking), {key: checking.line_of((key,)) for key in raw})
        for item in self._globals:
            if item.name not in SPECIAL and self._is_service(item):
                checking = self._checking_of(item)
                values = table(item.value) or {}
                yield from self._guarded(checking, partial(services.of_table, values, defaults, checking))
        for module in self._modules:
            if self._is_module(module):
                checking = self._checking_of_module(module)
                yield from self._guarded(checking, partial(self._of_module, module, defaults, checking))
        yield from self._namespaces()

    def _namespaces(self) -> Iterator[tuple[Checking, Service]]:
        """Yield the services that keep the network namespaces of the file, each with its table."""
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
            checking = self._checking_at(service_name(str(item.name)), item.line, found)
            yield from self._guarded(checking, partial(namespace, str(item.name), table(item.value) or {}, checking))

    def _guarded(self, checking: Checking, make: Callable[[], Service]) -> Iterator[tuple[Checking, Service]]:
        try:
            yield checking, make()
        except Exception as error:  # the others have to be checked nevertheless
            checking.problem(internal(error))
            self.broken.append(checking.name)

    def _of_module(self, module: Module, defaults: Defaults, checking: Checking) -> Service:
        functions = functions_of(module, checking)
        service = services.of_module(keys_of(module, checking), functions, defaults, checking)
        if not functions:
            return service
        reached = digest_of_text(module.reached) if module.reached else ""
        return replace(service, source_digest=digest_of_text(self._source.text), functions_digest=reached)

    def _checking_of_module(self, module: Module) -> Checking:
        node = node_of(module, self._lines)
        return Checking(self._databases, self._problems, self._file, module.name, module.line, node)

    def _is_module(self, module: Module) -> bool:
        wrong = _taken(module.name)
        if wrong:
            self._problems.add(self._file, module.line, wrong)
        return not wrong

    def _special_table(self, name: str) -> tuple[dict[str, Any], Checking]:
        item = self._special.get(name)
        if item is None:
            return {}, Checking(self._databases, self._problems, self._file, name, 0, {})
        checking = self._checking_of(item)
        values = table(item.value)
        if values is None:
            self._bad(item, f"{name} has to be a table with names, not {describe(item.value)}")
        return values or {}, checking

    def _checking_of(self, item: Global) -> Checking:
        """Return the table of a global: by its place in the text, or else by the line that ran."""
        name = str(item.name)
        return self._checking_at(name, item.line, self._lines.find(name, item.line))

    def _checking_at(self, name: str, line: int, found: Constructor | None) -> Checking:
        if found is None:
            return Checking(self._databases, self._problems, self._file, name, line, {})
        for key, first, second in found.twice:
            self._problems.add(self._file, second, f"{name}: key {describe(key)} is given twice, first on line {first}")
        return Checking(self._databases, self._problems, self._file, name, found.first, found.node)

    def _is_service(self, item: Global) -> bool:
        """Return whether a global can be a service, and report why not."""
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
    """Return why a global with this value cannot be a service; '' if it can."""
    name, value = item.name, item.value
    if not isinstance(name, str):
        return f"the name of a service has to be text, not {describe(name)}"
    if not isinstance(value, dict | list) or tag(value) not in ("", "pairs"):
        what = f"{describe(name)} is {describe(value)}, not a table: a service is a table"
        return f"{what}, anything else has to be local or have a name that begins with '_'"
    if table(value) is None:
        return f'{name}: every entry of a service has a name, like exec = "/usr/sbin/named"; one here has none'
    return ""


def _wrong_name(name: str) -> str:
    if name in NAMES:
        return f"{name!r} cannot be a service: it is a function or library of definitions"
    return _taken(name)


def _taken(name: str) -> str:
    """Return why a service cannot have this name in any definition; '' if it can."""
    if name in RESERVED:
        return f"{describe(name)} cannot be the name of a service: {RESERVED[name]}"
    if not is_service_name(name):
        rule = "up to 64 of A-Z a-z 0-9 _ . @ -, the first one a letter, a digit or '_'"
        return f"{describe(name)} cannot be the name of a service: {rule}"
    return ""


def digest_of_text(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    from hashlib import sha256

    return sha256(text.encode(errors="surrogateescape")).hexdigest()


def keys_of(module: Module, checking: Checking) -> dict[str, Any]:
    """Return the keys of a module with their values, like those of a table. Report keys that are given twice."""
    entries = [(entry.name, entry.line, entry.before) for entry in module.keys]
    for name, line, before in (*entries, *((entry.name, entry.line, entry.before) for entry in module.functions)):
        if before:
            text = f"{checking.name}: key {describe(name)} is given twice, first on line {before}"
            both = "; beside a function of its name a key has to be in _DEFAULT" if name in BOTH else ""
            checking.problems.add(checking.file, line, f"{text}{both}")
    values = {str(entry.name): entry.value for entry in module.keys}
    if module.depends:
        values["depends"] = [name for _line, name in module.depends]
    return values


def functions_of(module: Module, checking: Checking) -> dict[str, int]:
    """Return the functions of a module with their lines, in the order of `FUNCTIONS`; report others."""
    lines = {}
    for function in module.functions:
        if function.name in FUNCTIONS:
            lines[function.name] = function.line
        else:
            checking.problems.add(checking.file, function.line, _unknown(function, checking))
    return {name: lines[name] for name in FUNCTIONS if name in lines}


def _unknown(function: Function, checking: Checking) -> str:
    near = did_you_mean(function.name, FUNCTIONS)
    others = "" if near else "; one that others call has to be local or have a name that begins with '_'"
    return f"{checking.name}: unknown function {describe(function.name)}{near}{others}"


def node_of(module: Module, lines: Lines) -> Node:
    """Return the lines of a module's keys: their places in the text, or else the lines that set them."""
    node: Node = {}
    for entry in module.keys:
        name = str(entry.name)
        found = lines.find_key(name, module.line, entry.line)
        node[name] = (found.first, found.node) if found else (entry.line, {})
    if module.depends:
        names: Node = {index: (line, {}) for index, (line, _name) in enumerate(module.depends, 1)}
        node["depends"] = (module.depends[0][0], names)
    return node


def _cgroup(value: object, checking: Checking) -> str:
    folder = plain.absolute(value, checking)
    if ".." in folder.split("/"):
        raise InvalidValue(f"{folder!r} leads out of the cgroup file system")
    return folder


SETTINGS_KEYS = {
    "control_group": access.group_id,
    "log_level": plain.choice("log_level", "debug", "info", "notice", "warning", "err"),
    "cgroup": _cgroup,
}


class SettingsReader:
    """Collects `_SUPERVISOR` of all files."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Any, str]] = {}

    def add(self, values: dict[str, Any], checking: Checking) -> None:
        """Add the settings of one file; report bad settings."""
        for key, value in values.items():
            try:
                self._set(key, value, checking)
            except InvalidValue as error:
                checking.invalid(error, key)

    def _set(self, key: str, value: object, checking: Checking) -> None:
        if key not in SETTINGS_KEYS:
            raise InvalidValue("unknown setting" + did_you_mean(key, SETTINGS_KEYS))
        converted = SETTINGS_KEYS[key](value, checking)
        here = place(checking.file, checking.line_of((key,)))
        before, there = self._found.setdefault(key, (converted, here))
        if before != converted:
            raise InvalidValue(f"has another value at {there}")

    def settings(self) -> Settings:
        places = {key: place for key, (_, place) in self._found.items()}
        return Settings(**{key: value for key, (value, _) in self._found.items()}, places=places)
