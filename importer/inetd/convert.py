"""`spawnctl import inetd`: a definition for each line of inetd.conf."""

from __future__ import annotations

import os
from collections.abc import Sequence

from importer import internal
from importer.accounts import set_user
from importer.addresses import ANY, ANY_V4, ANY_V6, Address, Claims, number, port_number, serve
from importer.inetd.lines import Line, parse
from importer.ledger import Directive, Ledger
from importer.result import Definition, OutputFile, Result, SourceError, service_name
from importer.sources import read_source
from importer.values import Value, call

UMASK = "022"  # of inetd; a definition has 077


def convert(paths: Sequence[str]) -> Result:
    """Convert files like /etc/inetd.conf."""
    conversion = _Conversion()
    entries: list[Line] = []
    for path in paths:
        try:
            lines, errors = parse(path, read_source(path))
        except SourceError as error:
            conversion.result.errors.append(error)
        else:
            entries += lines
            conversion.result.errors += errors
    conversion.convert(entries)
    conversion.result.errors.sort(key=lambda error: (list(paths).index(error.file), error.line))
    return conversion.result


class _Conversion:
    """Converts lines, in the order of the source; those that are not switched off have their addresses first."""

    def __init__(self) -> None:
        self.result = Result()
        self._ledger = Ledger(self.result)
        self._names: set[str] = set()
        self._claims = Claims()

    def convert(self, lines: Sequence[Line]) -> None:
        v6 = {(line.service, line.protocol) for line in lines if line.family == "6"}
        addresses: dict[Directive, list[Address]] = {}
        reasons: dict[Directive, str] = {}
        for line in sorted(lines, key=lambda line: line.off):
            addresses[line.directive] = found = _addresses(line, (line.service, line.protocol) in v6)
            unknown = "/etc/services does not have it" if line.off and not self._known(line) else ""
            reasons[line.directive] = _refusal(line) or unknown or self._claimed(line, found)
        names: dict[Directive, list[str]] = {}
        for line in sorted(lines, key=lambda line: bool(reasons[line.directive])):
            names[line.directive] = [self._name(line) for _ in _groups(line, addresses[line.directive])]
        for line in lines:
            if not line.off and not reasons[line.directive] and not self._known(line):
                self.result.errors.append(
                    SourceError(
                        line.directive.file,
                        line.directive.line,
                        f"unknown service {line.service!r}: add it to /etc/services",
                    )
                )
            else:
                groups = _groups(line, addresses[line.directive])
                self._line(line, groups, names[line.directive], reasons[line.directive])

    def _claimed(self, line: Line, addresses: list[Address]) -> str:
        """Have the addresses for a line, or return why it does not get them."""
        owners = [self._claims.claim(address, line.directive) for address in addresses]
        owner = next((owner for owner in owners if owner), None)
        return f"its address is that of {os.path.basename(owner.file)}:{owner.line}" if owner else ""

    @staticmethod
    def _known(line: Line) -> bool:
        return line.protocol == "unix" or port_number(line.service, line.protocol) is not None

    def _line(self, line: Line, groups: list[list[Address]], names: list[str], reason: str) -> None:
        program = internal.program(line.service, line.type == "stream") if line.program == "internal" else ()
        for group, name in zip(groups, names, strict=True):
            output = OutputFile(f"{name}.lua")
            self.result.files.append(output)
            if reason or isinstance(program, str):
                self._ledger.left_out(line.directive, reason or str(program), output)
                continue
            definition = Definition(name)
            output.definitions.append(definition)
            self._ledger.carried(line.directive)
            self._definition(definition, line, group, program)

    def _name(self, line: Line) -> str:
        base = os.path.basename(line.service) if line.protocol == "unix" else line.service.partition("/")[0]
        if base.isdecimal() and line.program != "internal":
            base = os.path.basename(line.program)
        if base in self._names:
            base = f"{base}_{line.protocol}{line.family}"
        name = service_name(base, self._names)
        self._names.add(name)
        return name

    def _definition(self, definition: Definition, line: Line, group: list[Address], program: tuple[str, ...]) -> None:
        connections = not line.waits
        if connections and line.type == "dgram":
            connections = False
            self._approximate(
                line, line.wait_text, "a datagram has no connection: the program gets the socket", definition
            )
        if line.off:
            definition.set("status", "stop")
        elif not connections:
            definition.set("status", "demand")
        self._limits(definition, line, connections)
        if program:
            _set_program(definition, program[0], program[1:])
        else:
            own, *rest = line.arguments or (line.program,)
            _set_program(definition, line.program, rest)
            if os.path.basename(own) != os.path.basename(line.program):
                definition.set("argv0", own)
            self._user(definition, line)
        options: dict[str, Value] = dict(line.options)
        serve(definition, [address.constructor(**options) for address in group], connections)
        definition.set("stderr", call("log"))

    def _user(self, definition: Definition, line: Line) -> None:
        if line.login_class:
            self._left_out(line, f"{line.user}/{line.login_class}", "there are no login classes", definition)
        directive = Directive(line.directive.file, line.directive.line, line.user)
        set_user(self._ledger, definition, directive, line.user, line.group)
        definition.set("umask", UMASK)

    def _limits(self, definition: Definition, line: Line, connections: bool) -> None:
        """Set `accept`, with the numbers behind `wait` and `nowait`."""
        entries: dict[str, Value] = {}
        if line.rate and connections:
            self._approximate(
                line,
                line.wait_text,
                "more clients wait, and the service is not switched off for ten minutes",
                definition,
            )
            entries["rate"] = f"{line.rate}/m"
        if any(line.limits) and connections:
            for key, limit in zip(("max", "source_rate", "per_source"), line.limits, strict=False):
                if limit:
                    entries[key] = f"{limit}/m" if key == "source_rate" else limit
        elif (line.rate or any(line.limits)) and not connections:
            self._approximate(
                line, line.wait_text, "a program that fails is started again after growing delays", definition
            )
        if connections:
            definition.set("accept", entries or True)

    def _approximate(self, line: Line, text: str, note: str, definition: Definition) -> None:
        self._ledger.approximate(Directive(line.directive.file, line.directive.line, text), note, definition)

    def _left_out(self, line: Line, text: str, note: str, definition: Definition) -> None:
        self._ledger.left_out(Directive(line.directive.file, line.directive.line, text), note, definition)


def _set_program(definition: Definition, program: str, arguments: Sequence[str]) -> None:
    definition.set("exec", program)
    if arguments:
        definition.set("arg", [number(argument) for argument in arguments])


def _refusal(line: Line) -> str:
    """Return why a line has no equivalent, or ''."""
    if line.special.startswith("rpc"):
        return "spawnd registers nothing with rpcbind"
    if line.special == "faith" or line.special.startswith("faith/"):
        return "there is no translator from IPv6 to IPv4"
    if line.special:
        return "there is no TCP for transactions"
    if line.service.startswith("tcpmux"):
        return "there is no multiplexer for TCP"
    if line.type in ("rdm", "raw"):
        return "the program opens such a socket itself"
    return ""


def _groups(line: Line, addresses: list[Address]) -> list[list[Address]]:
    """Return the addresses of each definition: a program that waits gets one socket."""
    return [[address] for address in addresses] if line.waits or line.type == "dgram" else [addresses]


def _addresses(line: Line, has_v6: bool) -> list[Address]:
    """Return the sockets of a line; one that is for IPv4 and IPv6 leaves IPv6 to a line of its own."""
    if line.protocol == "unix":
        return [Address(line.type, line.service)]
    everywhere = {"4": ANY_V4, "6": ANY_V6, "46": ANY}.get(line.family, ANY_V4 if has_v6 else ANY)
    hosts = [everywhere if host == ANY else host for host in line.hosts] or [everywhere]
    return [Address(line.protocol, line.service, host) for host in hosts]
