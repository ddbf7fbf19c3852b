"""Units of systemd as definitions: a file for each service, with its sockets and timers, and for each target."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from importer.accounts import other_groups, own_group
from importer.result import Definition, Finding, Function, Outcome, OutputFile, Result, SourceError, service_name
from importer.systemd import directories, unit_section, values
from importer.systemd.commands import NO_FUNCTIONS, Plan, make_plan
from importer.systemd.conversion import Conversion, Shape
from importer.systemd.directories import PLACES, Folder
from importer.systemd.order import AT_BOOT, Order
from importer.systemd.socket import SocketConversion, accepts
from importer.systemd.steps import Step
from importer.systemd.unit_file import Entry
from importer.systemd.units import Loader, Unit
from importer.values import Value, call

AS_SYSTEMD = "as systemd has it by default"
NO_INSTALL = "no [Install]: another service or `spawnctl start` starts it"


@dataclass(slots=True)
class Source:
    """A service with the sockets and timers that start it; `name` is that of its definition."""

    unit: Unit
    name: str = ""
    sockets: list[Unit] = field(default_factory=list)
    timers: list[Unit] = field(default_factory=list)

    @property
    def sessions(self) -> bool:
        return any(map(accepts, self.sockets))


def convert(paths: Sequence[str]) -> Result:
    """Convert unit files, and those in folders."""
    result = Result()
    loader = Loader(paths, result)
    sources = _sources(loader, result)
    while True:
        names = _names(loader, sources)
        order = Order({**loader.units, **{source.unit.name: source.unit for source in sources}}, names)
        part = Result()
        broken = _services(sources, order, part)
        if not broken:
            break
        result.errors += part.errors
        sources = [source for source in sources if source not in broken]  # nothing may depend on them
    for unit in [unit for unit in loader.units.values() if unit.kind == ".target"]:
        _target(unit, names, order, part)
    return Result(part.files, result.findings + part.findings, result.errors)


def _services(sources: Sequence[Source], order: Order, result: Result) -> list[Source]:
    """Convert services, and return those that cannot be converted."""
    broken = []
    for source in sources:
        part = Result()
        try:
            file = ServiceConversion(source, order, part).convert()
        except SourceError as error:
            result.errors.append(error)
            broken.append(source)
            continue
        result.files.append(file)
        result.findings += part.findings
    return broken


def _sources(loader: Loader, result: Result) -> list[Source]:
    """Return the services in the order of the units that lead to them; units without one are errors."""
    found: dict[str, Source] = {}

    def source(unit: Unit) -> Source:
        return found.setdefault(unit.name, Source(unit))

    for unit in list(loader.units.values()):
        if unit.kind == ".service":
            source(unit)
            for name in unit.names("Service", "Sockets") + unit.names("Unit", "Requires", "BindsTo"):
                if name.endswith(".socket"):
                    loader.beside(unit, name)
    for unit in list(loader.units.values()):
        if unit.kind not in (".socket", ".timer"):
            continue
        try:
            started = _started(loader, unit)
        except SourceError as error:
            result.errors.append(error)
            continue
        if started is None:
            missing = f"cannot convert: the service that it starts is neither given nor beside it: {_service_of(unit)}"
            result.errors.append(SourceError(unit.path, 1, missing))
            continue
        one = found.setdefault(unit.name, Source(started)) if accepts(unit) else source(started)
        (one.sockets if unit.kind == ".socket" else one.timers).append(unit)
    return list(found.values())


def _service_of(unit: Unit) -> str:
    if unit.kind == ".timer":
        return unit.value("Timer", "Unit") or f"{unit.base}.service"
    if accepts(unit):
        return f"{unit.base.partition('@')[0]}@.service"
    return unit.value("Socket", "Service") or f"{unit.base}.service"


def _started(loader: Loader, unit: Unit) -> Unit | None:
    if accepts(unit):
        return loader.connection_template(unit)
    return loader.beside(unit, _service_of(unit))


def _names(loader: Loader, sources: Sequence[Source]) -> dict[str, str]:
    """Name the definitions, and return the names by the units that become part of them."""
    taken: list[str] = []
    names: dict[str, str] = {}
    for source in sources:
        base = source.sockets[0].base if source.sessions else source.unit.base
        source.name = service_name(base, taken)
        taken.append(source.name)
        for unit in [*([] if source.sessions else [source.unit]), *source.sockets]:
            names[unit.name] = source.name
    for unit in loader.units.values():
        if unit.kind == ".target" and _has_members(unit, loader, names):
            names[unit.name] = service_name(unit.base if unit.base not in taken else unit.name, taken)
            taken.append(names[unit.name])
    names.update((alias, names[name]) for alias, name in loader.aliases.items() if name in names)
    return names


def _has_members(target: Unit, loader: Loader, names: dict[str, str]) -> bool:
    own = target.names("Unit", "Requires", "Wants", "BindsTo")
    wanted = [
        unit.name for unit in loader.units.values() if target.name in unit.names("Install", "WantedBy", "RequiredBy")
    ]
    return any(name in names for name in own + wanted)


def _target(unit: Unit, names: dict[str, str], order: Order, result: Result) -> None:
    """Convert a target to a group; one without members among the units is left out."""
    if unit.name not in names:
        text = "nothing that belongs to it is converted"
        result.findings.append(Finding(unit.path, 1, unit.name, Outcome.LEFT_OUT, text))
        return
    definition = Definition(names[unit.name])
    conversion = Conversion(unit, definition, Shape.GROUP, result)
    unit_section.convert_sections(conversion, unit, order, None)
    order.finish(conversion)
    if not conversion.has("depends"):
        definition.functions.append(Function("start", ("return true",)))
    result.files.append(OutputFile(f"{definition.name}.lua", [definition], [f"from {_sources_text([unit])}"]))


def _sources_text(units: Sequence[Unit]) -> str:
    """Return the names of the files of units, with those of drop-ins."""
    files = dict.fromkeys(unit.path for unit in units)
    for unit in units:
        files.update(dict.fromkeys(entry.file for entry in [*unit.entries, *unit.replaced]))
    return ", ".join(_shown(path) for path in files)


def _shown(path: str) -> str:
    folder, name = os.path.split(path)
    return f"{os.path.basename(folder)}/{name}" if name.endswith(".conf") else name


class ServiceConversion:
    """Converts one service."""

    def __init__(self, source: Source, order: Order, result: Result) -> None:
        self._source = source
        self._unit = source.unit
        self._order = order
        self._result = result
        self._definition = Definition(source.name)
        self._folders: list[Folder] = []

    def convert(self) -> OutputFile:
        """Return the file. Raises SourceError."""
        source, unit = self._source, self._unit
        plan = make_plan(unit, sessions=source.sessions)
        conversion = Conversion(unit, self._definition, plan.shape, self._result)
        own = {key: self._add_directories for key in PLACES}
        unit_section.convert_sections(conversion, unit, self._order, plan, own)
        for section in dict.fromkeys(entry.section for entry in unit.entries):
            entries = [entry for entry in unit.entries if entry.section == section]
            if section.startswith("X-"):
                conversion.carried(entries, "systemd ignores it, too")
            elif section not in ("Unit", "Service", "Install"):
                conversion.left_out(entries, f"[{section}] is no section of a service")
        self._convert_sockets(conversion, plan)
        self._convert_timers(conversion)
        self._set_status(conversion)
        self._order.finish(conversion)
        user, group = self._set_user(conversion, plan)
        self._set_functions(conversion, plan, user, group)
        self._set_defaults(conversion, plan)
        self._record_replaced()
        units = [unit, *source.sockets, *source.timers]
        return OutputFile(f"{source.name}.lua", [self._definition], [f"from {_sources_text(units)}"])

    def _add_directories(self, conversion: Conversion, entries: Sequence[Entry]) -> None:
        self._folders += directories.directories(conversion, entries)

    def _record_replaced(self) -> None:
        for unit in [self._unit, *self._source.sockets, *self._source.timers]:
            for entry in unit.replaced:
                text = "a later line takes its place" if entry.value else "it resets earlier lines"
                finding = Finding(entry.file, entry.line, entry.directive, Outcome.CARRIED, text)
                self._result.findings.append(finding)

    # sockets and timers

    def _convert_sockets(self, conversion: Conversion, plan: Plan) -> None:
        unit, definition = self._unit, self._definition
        descriptors: list[Value] = []
        accept: dict[str, Value] = {}
        reads_socket = unit.value("Service", "StandardInput") == "socket"
        for socket in self._source.sockets:
            one = SocketConversion(conversion, socket)
            one.convert()
            self._convert_beside(conversion, socket)
            descriptors += one.descriptors
            accept.update(one.accept)
        if not self._source.sockets:
            return
        if not descriptors:
            raise SourceError(self._source.sockets[0].path, 1, "cannot convert: no socket of it has an equivalent")
        if plan.shape is Shape.SESSIONS:
            options: dict[str, Value] = {} if reads_socket else {"descriptor": 3}
            options.update(accept)
            definition.set("accept", options or True)
            definition.set("fd", descriptors)
        elif reads_socket and plan.shape is Shape.PROGRAM:
            definition.set("stdin", descriptors[0])
            if unit.value("Service", "StandardOutput", "inherit") in ("inherit", "socket"):
                definition.note("its stdout is the log, not the socket")
            if descriptors[1:]:
                definition.set("fd", descriptors[1:])
        else:
            definition.set("fd", descriptors)

    def _convert_beside(self, conversion: Conversion, unit: Unit) -> None:
        """Convert [Unit] and [Install] of a socket or timer for the definition of its service."""
        beside = Conversion(unit, self._definition, conversion.shape, self._result)
        unit_section.convert_sections(beside, unit, self._order, None)

    def _convert_timers(self, conversion: Conversion) -> None:
        for unit in self._source.timers:
            unit_section.timer(conversion, [entry for entry in unit.entries if entry.section == "Timer"])
            self._convert_beside(conversion, unit)

    def _set_status(self, conversion: Conversion) -> None:
        """Set when it starts: by a client, by a timer or another service, or with spawnd."""
        unit, definition = self._unit, self._definition
        wanted = unit.names("Install", "WantedBy", "RequiredBy", "UpheldBy")
        if conversion.shape is Shape.SESSIONS:
            return
        if self._source.sockets:
            wakes = any(entry.key != "ListenSpecial" for socket in self._source.sockets for entry in socket.entries
                        if entry.section == "Socket" and entry.key.startswith("Listen"))  # fmt: skip
            if not wakes or conversion.shape is Shape.STEPS or AT_BOOT.intersection(wanted):
                return
            if conversion.has("task"):
                definition.remove("task")
                definition.note("a client starts it, so it is no task")
            definition.set("status", "demand")
        elif self._source.timers:
            definition.set("status", "stop")
        elif not wanted:
            definition.note(NO_INSTALL)
            definition.set("status", "stop")

    # users and functions

    def _set_user(self, conversion: Conversion, plan: Plan) -> tuple[str, str]:
        definition = self._definition
        user = str(definition.keys.get("user", "root"))
        if plan.command is not None and plan.command.as_root and plan.shape is not Shape.STEPS and user != "root":
            definition.note(f"the program starts as root, and may become {user!r} itself")
            definition.remove("group")
            user = "root"
            definition.set("user", user)
        conversion.default("user", user)
        conversion.default("group", own_group(user) or user)
        group = str(definition.keys["group"])
        if user != "root" and (others := other_groups(user, group)):
            conversion.add("groups", others)
        return user, group

    def _set_functions(self, conversion: Conversion, plan: Plan, user: str, group: str) -> None:
        """Write the functions. Steps as root make it the user of all of them, and others drop its rights."""
        steps = [*conversion.before_start, *conversion.after_stop, *conversion.at_reload]
        all_root = not values.is_off(self._unit.value("Service", "PermissionsStartOnly"))
        is_root = user == "root"
        needs_root = bool(self._folders) or any(step.needs_root for step in steps) or all_root
        lower: tuple[str, str] | None = None
        if (steps or self._folders) and not is_root and needs_root:
            lower = None if all_root else (user, group)
            if plan.shape is Shape.STEPS:
                self._definition.set("user", "root")
                self._definition.set("group", "root")
                self._definition.remove("groups")
            else:
                self._definition.set("function_user", "root")

        def lines(part: Sequence[Step]) -> list[str]:
            return [step.line(lower) for step in part]

        start = [*directories.making(self._folders, user, group), *lines(conversion.before_start)]
        stop = [*lines(conversion.after_stop), *directories.removing(self._folders)]
        is_task = plan.shape is Shape.STEPS and not plan.remains
        bodies = {"start": start, "stop": [] if is_task else stop, "reload": lines(conversion.at_reload)}
        assert plan.shape is not Shape.SESSIONS or not any(bodies.values()), NO_FUNCTIONS
        self._definition.functions += [Function(name, tuple(body)) for name, body in bodies.items() if body]
        if plan.shape is Shape.STEPS and not self._definition.functions:
            self._definition.functions.append(Function("start", ("return true",)))

    def _set_defaults(self, conversion: Conversion, plan: Plan) -> None:
        """Set what systemd does without a directive, where spawnd does something else."""
        definition = self._definition
        found: dict[str, Value] = {"umask": "022", "login_env": True}
        if plan.shape is Shape.PROGRAM:
            known = definition.keys
            if not plan.is_oneshot and known.get("status") != "demand":
                found["restart"] = "never"
            if known.get("stop_timeout") is None:
                found["stop_timeout"] = "90s"
            found["kill_mode"] = "group"
            found["stdout"] = call("log")
            if "stdout" not in conversion.silent or "stderr" in known:
                found["stderr"] = known.get("stdout", call("log"))
        elif plan.shape is Shape.STEPS and plan.is_oneshot:
            found["start_timeout"] = False
        missing = {name: value for name, value in found.items() if conversion.lacks(name)}
        if missing:
            definition.note(AS_SYSTEMD)
        for name, value in missing.items():
            conversion.default(name, value)
