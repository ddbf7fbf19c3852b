"""`spawnctl import xinetd`: a definition for each service of xinetd."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from importer import internal
from importer.addresses import ANY, ANY_V4, ANY_V6, Address, Claims, port_number, serve
from importer.ledger import Directive, Ledger
from importer.result import Definition, OutputFile, Result, SourceError, service_name
from importer.xinetd import access, process
from importer.xinetd.attributes import IN_DEFAULTS, OF_ALL, Attributes
from importer.xinetd.files import Attribute, Reader, Section
from importer.xinetd.flags import WITHOUT_EQUIVALENT, flags
from importer.xinetd.service import BadValue, Service

_KINDS = {"stream": "tcp", "dgram": "udp"}
_TYPES = {
    "RPC": "spawnd registers nothing with rpcbind",
    "TCPMUX": "there is no multiplexer for TCP",
    "TCPMUXPLUS": "there is no multiplexer for TCP",
}
_SHAPE = tuple("id type disable socket_type protocol wait port bind interface v6only".split())
_HANDLED = frozenset(
    {*_SHAPE, *process.HANDLERS, *process.LIMITS, *access.HANDLERS}
    | set("flags server server_args user group groups umask log_type redirect".split())
)


def convert(paths: Sequence[str]) -> Result:
    """Convert files like /etc/xinetd.conf, with what they include, or folders of them."""
    reader = Reader()
    for path in paths:
        reader.read(path)
    result = _Conversion(reader).result
    result.errors.sort(key=lambda error: (error.file, error.line))
    return result


@dataclass(frozen=True, slots=True)
class _Plan:
    """A service before it is converted; `refusal` says why there is no definition."""

    section: Section
    attributes: Attributes
    off: bool
    address: Address
    refusal: str


class _Conversion:
    """Converts sections; services that are on have their addresses and names first."""

    def __init__(self, reader: Reader) -> None:
        self.result = Result(errors=list(reader.errors))
        self._ledger = Ledger(self.result)
        self._names: set[str] = set()
        self._claims = Claims()
        self._defaults = [each for section in reader.sections if not section.name for each in section.attributes]
        common = Attributes([], self._defaults)
        self._disabled, self._enabled = set(common.values("disabled")), set(common.values("enabled"))
        sections = [section for section in reader.sections if section.name]
        plans = {section.directive: plan for section in self._on_first(sections) if (plan := self._plan(section))}
        refused_last = sorted(plans.values(), key=lambda plan: bool(plan.refusal))
        names = {plan.section.directive: self._name(plan) for plan in refused_last}
        for section in sections:
            if section.directive in plans:
                self._service(plans[section.directive], names[section.directive])
        self._finish_defaults()

    def _on_first(self, sections: list[Section]) -> list[Section]:
        return sorted(sections, key=lambda section: self._is_off(section, Attributes([], section.attributes)))

    def _is_off(self, section: Section, attributes: Attributes) -> bool:
        names = {section.name, attributes.first("id", section.name)}
        if attributes.first("disable").lower() == "yes" or names & self._disabled:
            return True
        return bool(self._enabled) and not names & self._enabled

    def _plan(self, section: Section) -> _Plan | None:
        """Return how a service is converted, or None after an error."""
        attributes = Attributes(self._defaults, section.attributes)
        off = self._is_off(section, attributes)
        kind = attributes.first("socket_type", "stream")
        protocol = _KINDS.get(kind, "tcp")
        types = {word.upper() for word in attributes.values("type")}
        address = Address(protocol, attributes.first("port", section.name), _host(attributes))
        refusal = next((_TYPES[word] for word in sorted(types) if word in _TYPES), "")
        if kind not in _KINDS:
            refusal = refusal or f"a program opens a socket of type {kind!r} itself"
        elif attributes.first("protocol", protocol) != protocol:
            refusal = refusal or f"{kind} does not go with {attributes.first('protocol')}"
        elif "INTERNAL" in types and isinstance(why := internal.program(section.name, kind == "stream"), str):
            refusal = refusal or why
        if not refusal and port_number(address.port, address.kind) is None:
            if not off:
                where = next((each.directive for each in attributes.of("port")), section.directive)
                self._error(where, f"unknown service {address.port!r}: add it to /etc/services, or set 'port'")
                return None
            refusal = "/etc/services does not have it"
        if not refusal and (owner := self._claims.claim(address, section.directive)):
            refusal = f"its address is that of {os.path.basename(owner.file)}:{owner.line}"
        return _Plan(section, attributes, off, address, refusal)

    def _name(self, plan: _Plan) -> str:
        base = plan.attributes.first("id", plan.section.name)
        name = service_name(f"{base}_{plan.address.kind}" if base in self._names else base, self._names)
        self._names.add(name)
        return name

    def _service(self, plan: _Plan, name: str) -> None:
        output = OutputFile(f"{name}.lua")
        definition = Definition(name)
        if plan.refusal:
            self._ledger.left_out(plan.section.directive, plan.refusal, output)
            for attribute in plan.section.attributes:
                self._ledger.left_out(attribute.directive, "", None)
            self.result.files.append(output)
            return
        waits = plan.attributes.first("wait", "no").lower() == "yes" or plan.address.kind == "udp"
        service = Service(
            plan.section.directive, plan.section.name, plan.attributes, self._ledger, definition, not waits
        )
        self._ledger.carried(plan.section.directive)
        errors = len(self.result.errors)
        self._keys(service, plan)
        if len(self.result.errors) == errors:
            output.definitions.append(definition)
            self.result.files.append(output)

    def _keys(self, service: Service, plan: _Plan) -> None:
        """Set the keys of a definition."""
        attributes, definition = service.attributes, service.definition
        if plan.off:
            definition.set("status", "stop")
        elif not service.connections:
            definition.set("status", "demand")
        if plan.address.kind == "udp" and attributes.first("wait").lower() == "no":
            service.approximate("wait", "a datagram has no connection: the program gets the socket")
        self._step(service, "flags", lambda: flags(service, "flags") if attributes.of("flags") else None)
        for name, handler in access.HANDLERS.items():
            if attributes.of(name):
                handle = handler if service.connections else access.without_connections
                self._step(service, name, lambda handle=handle, name=name: handle(service, name))  # type: ignore[misc]
        if "SENSOR" in service.flags():
            service.accept["trap"] = True
        if service.connections:
            definition.set("accept", service.accept or True)
        self._step(service, "server", lambda: self._program(service))
        for name in _SHAPE:
            service.carried(name)
        self._step(service, "umask", lambda: self._account(service))
        for name, more in process.HANDLERS.items():
            if attributes.of(name):
                self._step(service, name, lambda more=more, name=name: more(service, name))  # type: ignore[misc]
        serve(definition, [plan.address.constructor()], service.connections)
        self._step(service, "rlimit_as", lambda: process.limits(service))
        self._step(service, "log_type", lambda: process.log_type(service))
        self._rest(service)

    def _program(self, service: Service) -> None:
        types = {word.upper() for word in service.attributes.values("type")}
        if "SENSOR" in service.flags():
            return
        if "INTERNAL" in types:
            program = internal.program(service.name, service.connections)
            service.definition.set("exec", program[0])
            if program[1:]:
                service.definition.set("arg", list(program[1:]))
        elif service.attributes.of("redirect"):
            self._redirect(service)
        elif not service.attributes.of("server"):
            self._error(service.directive, "'server' is missing")
        else:
            process.program(service)

    @staticmethod
    def _redirect(service: Service) -> None:
        match service.attributes.values("redirect"):
            case [host, port] if service.connections:
                service.approximate("redirect", "a process for each connection; a proxy is better for many")
                service.definition.set("exec", "/usr/bin/socat")
                shown = f"[{host}]" if ":" in host else host
                service.definition.set("arg", ["STDIO", f"TCP:{shown}:{port}"])
            case _:
                raise BadValue("redirect: HOST PORT expected, for a stream without 'wait'")

    @staticmethod
    def _account(service: Service) -> None:
        if service.definition.keys.get("exec") in {program[0] for program in internal.PROGRAMS.values()} and (
            not service.attributes.of("server")
        ):
            return  # nobody is enough
        if "exec" in service.definition.keys:
            process.account(service)
            process.umask(service)

    def _rest(self, service: Service) -> None:
        """Say what becomes of attributes that nothing stands for."""
        for attribute in service.attributes.repeated:
            self._ledger.left_out(attribute.directive, "xinetd takes the first one", service.definition)
        for name in service.attributes.names:
            if name in _HANDLED:
                service.carried(name)
            else:
                service.left_out(name, WITHOUT_EQUIVALENT.get(name, "xinetd does not have it"))

    def _finish_defaults(self) -> None:
        """Say what becomes of defaults that no service takes."""
        told = {(each.file, each.line) for each in self.result.findings}
        for attribute in self._defaults:
            if (attribute.directive.file, attribute.directive.line) in told:
                continue
            if attribute.name in OF_ALL or (attribute.name in IN_DEFAULTS and attribute.name not in WITHOUT_EQUIVALENT):
                self._ledger.carried(attribute.directive)
            else:
                text = WITHOUT_EQUIVALENT.get(attribute.name, "the defaults of xinetd cannot have it")
                self._ledger.left_out(attribute.directive, text, None)

    def _step(self, service: Service, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except BadValue as error:
            named = str(error).partition(":")[0]
            found: list[Attribute] = service.attributes.of(named) or service.attributes.of(name)
            self._error(found[-1].directive if found else service.directive, str(error))

    def _error(self, directive: Directive, text: str) -> None:
        self.result.errors.append(SourceError(directive.file, directive.line, text))


def _host(attributes: Attributes) -> str:
    """Return the address of a socket, by `bind` or its other name `interface`, or by the flags."""
    bound = attributes.first("bind") or attributes.first("interface")
    if bound:
        return bound
    given = {flag.upper() for flag in attributes.values("flags")}
    if "IPV6" in given or attributes.first("v6only").lower() == "yes":
        return ANY_V6
    return ANY_V4 if "IPV4" in given else ANY
