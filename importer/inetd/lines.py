"""Lines of inetd.conf: those of BSD, Debian and busybox.

SERVICE TYPE PROTOCOL WAIT USER PROGRAM ARGUMENTS…, see inetd.conf(5). A line that begins with a blank goes on with the
line before it. A line `ADDRESS:` has the address of the lines after it. A `#` before a line switches it off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from importer.ledger import Directive
from importer.result import SourceError

FIELDS = 6
TYPES = frozenset({"stream", "dgram", "seqpacket", "rdm", "raw"})

_TRANSPORT = {"stream": "tcp", "dgram": "udp", "seqpacket": "unix"}

_OFF = re.compile(r"#+[ \t]*(?:<off>)?[#\s]*")
_PROTOCOL = re.compile(
    r"(?P<net>tcp|udp)(?P<family>46|4|6)?(?P<more>/ttcp|/faith)?|(?P<unix>unix)|(?P<rpc>rpc/(?:tcp|udp)[46]*)"
    r"|(?P<faith>faith/\w+)"
)
_WAIT = re.compile(r"(?P<word>wait|nowait)(?:[.:](?P<rate>\d+)|(?P<limits>(?:/\d+){1,3}))?")
_BUFFER = re.compile(r"(?P<name>sndbuf|rcvbuf)=(?P<size>\d+[kKmM]?)")
_HOST = re.compile(r"\*|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")
_UNIX = re.compile(r":(?P<owner>[^:]*):(?P<group>[^:]*):(?P<mode>[0-7]+):(?P<path>/.*)")


@dataclass(frozen=True, slots=True)
class Line:
    """An entry. `limits` are the three numbers of FreeBSD, where there are some; 0 is no limit."""

    directive: Directive
    off: bool
    service: str
    hosts: tuple[str, ...]
    type: str
    protocol: str
    family: str
    special: str  # a protocol without an equivalent, or ''
    options: dict[str, str]
    waits: bool
    wait_text: str
    rate: int
    limits: tuple[int, ...]
    user: str
    group: str
    login_class: str
    program: str
    arguments: tuple[str, ...]


def parse(path: str, text: str) -> tuple[list[Line], list[SourceError]]:
    """Return the entries of a file, those that are switched off among them, and the errors of other lines."""
    lines: list[Line] = []
    errors: list[SourceError] = []
    hosts: tuple[str, ...] = ()
    for number, raw in _joined(text):
        off = raw.startswith("#")
        content = _OFF.sub("", raw, count=1) if off else raw
        try:
            fields = _fields(path, number, content)
            if len(fields) == 1 and fields[0].endswith(":") and not off:
                hosts = _hosts(Directive(path, number, fields[0]), fields[0][:-1])
            elif fields:
                lines.append(_line(Directive(path, number, " ".join(fields)), off, fields, hosts))
        except SourceError as error:
            if not off:  # else it is a remark
                errors.append(error)
    return lines, errors


def _joined(text: str) -> list[tuple[int, str]]:
    """Return lines with the numbers of their beginnings."""
    found: list[tuple[int, str]] = []
    follows = False
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip():
            follows = False
        elif line[0] in " \t" and follows and not line.lstrip().startswith("#"):
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        else:
            found.append((number, line.strip()))
            follows = not line.lstrip().startswith("#")
    return found


def _fields(path: str, number: int, text: str) -> list[str]:
    """Return words; one that begins with a quote reaches to the next such quote."""
    fields = []
    rest = text.strip()
    while rest:
        if rest[0] in "\"'":
            word, quote, rest = rest[1:].partition(rest[0])
            if not quote:
                raise SourceError(path, number, "a quote is not closed")
        else:
            word = rest.split(None, 1)[0]
            rest = rest[len(word) :]
        fields.append(word)
        rest = rest.lstrip()
    return fields


def _line(directive: Directive, off: bool, fields: list[str], hosts: tuple[str, ...]) -> Line:
    """Return the entry of a line with these words. Raises SourceError."""
    if len(fields) < FIELDS:
        text = f"{len(fields)} fields instead of at least {FIELDS}: service, type, protocol, wait, user, program"
        raise _broken(directive, text)
    service, kind, protocol, wait, user, program = fields[:FIELDS]
    net, options = _protocol(directive, kind, protocol)
    limits = _WAIT.fullmatch(wait)
    if limits is None:
        raise _broken(directive, f"neither 'wait' nor 'nowait': {wait!r}")
    if program != "internal" and not program.startswith("/"):
        raise _broken(directive, f"the program is no absolute path: {program!r}")
    if net["unix"]:
        service, hosts = _unix(service, options), ()
        if not service.startswith("/"):
            raise _broken(directive, f"the path of a Unix socket is not absolute: {service!r}")
    elif ":" in service:
        host, _, service = service.rpartition(":")
        hosts = _hosts(directive, host)
    user, _, login_class = user.partition("/")
    user, _, group = user.partition(":" if ":" in user else ".")
    if not user:
        raise _broken(directive, "the user is empty")
    return Line(
        directive, off, service, hosts, kind, net["unix"] or net["net"] or "", net["family"] or "",
        net["rpc"] or net["faith"] or (net["more"] or "").removeprefix("/"),
        options, limits["word"] == "wait", wait, int(limits["rate"] or 0),
        tuple(map(int, (limits["limits"] or "").split("/")[1:])),
        user, group, login_class, program, tuple(fields[FIELDS:]),
    )  # fmt: skip


def _protocol(directive: Directive, kind: str, protocol: str) -> tuple[re.Match[str], dict[str, str]]:
    """Return the parts of a protocol, and its options. Raises SourceError, also if the type does not go with it."""
    if kind not in TYPES:
        raise _broken(directive, f"unknown type of a socket: {kind!r}")
    word, *buffers = protocol.split(",")
    match, options = _PROTOCOL.fullmatch(word), [_BUFFER.fullmatch(buffer) for buffer in buffers]
    if match is None or None in options:
        raise _broken(directive, f"unknown protocol: {protocol!r}")
    if match["net"] and _TRANSPORT.get(kind, match["net"]) != match["net"]:
        raise _broken(directive, f"a socket of type {kind!r} has another protocol than {word!r}")
    return match, {option["name"]: option["size"].lower() for option in options if option}


def _broken(directive: Directive, text: str) -> SourceError:
    return SourceError(directive.file, directive.line, text)


def _unix(service: str, options: dict[str, str]) -> str:
    """Return the path of a Unix socket; FreeBSD has `:OWNER:GROUP:MODE:PATH`."""
    match = _UNIX.fullmatch(service)
    if match is None:
        return service
    options.update({name: match[name] for name in ("owner", "group", "mode") if match[name]})
    return match["path"]


def _hosts(directive: Directive, text: str) -> tuple[str, ...]:
    """Return addresses of a list with commas; those of IPv6 may be in brackets. Raises SourceError."""
    hosts = tuple(host.strip("[]") for host in text.split(",") if host.strip("[]"))
    for host in hosts:
        if _HOST.fullmatch(host) is None:
            raise _broken(directive, f"neither an address nor the name of a host: {host!r}")
    return hosts
