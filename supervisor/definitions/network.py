"""Ports and addresses of definitions: numbers, or names that this host's databases know."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad
from supervisor.definitions.values import describe, is_digits

OTHER = {"udp": "tcp", "tcp": "udp"}
MAX_PORT = 65535

_INTERFACE = re.compile(r"[!-$&-.0-~]{1,15}")  # IFNAMSIZ is 16; no space, no '/', no '%'


class Network:
    """Remembers what it looked up.  `progress` is told where and what before a look-up that may take long.

    `unavailable`: a name service did not answer, as at a boot whose network is not up yet.
    """

    def __init__(self, progress: Callable[[str, str], None]) -> None:
        self.unavailable = False
        self._progress = progress
        self._addresses: dict[str, str | Bad] = {}
        self._ports: dict[tuple[str, str], int | None] = {}

    def port(self, name: str, protocol: str) -> int:
        """The number of a port of the services database: of `protocol` first, then of the other.  Raises Bad."""
        if is_digits(name):
            if len(name) > 5 or int(name) > MAX_PORT:
                raise Bad(f"{describe(name)} is not a port, they go from 0 to {MAX_PORT}")
            return int(name)
        key = (name, protocol)
        if key not in self._ports:
            self._ports[key] = _port(name, protocol) or _port(name, OTHER[protocol])
        found = self._ports[key]
        if found is None:
            unknown = f"unknown port {describe(name)}: the services database has none of that name"
            raise Bad(unknown + hint(name, _services()))
        return found

    def address(self, host: str, at: str) -> str:
        """The numeric address of `host`, which a file has `at` FILE:LINE; `*` is every address.  Raises Bad."""
        if host not in self._addresses:
            self._addresses[host] = self._resolve(host, at)
        found = self._addresses[host]
        if isinstance(found, Bad):
            raise Bad(found.message)
        return found

    def _resolve(self, host: str, at: str) -> str | Bad:
        if host == "*":
            return "::" if has_ipv6() else "0.0.0.0"  # noqa: S104  the operator asked for every address
        numeric = _numeric(host)
        if numeric:
            return numeric
        if not host or "%" in host or not host.isprintable() or any(character.isspace() for character in host):
            return Bad(f"{describe(host)} is not an address")
        self._progress(at, f"look up host {describe(host)}")
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:  # a ValueError: NUL, or no name for IDNA
            self.unavailable |= isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            cause = error.strerror if isinstance(error, OSError) else "not a name"
            return Bad(f"cannot look up host {describe(host)}: {cause}")
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if len(addresses) != 1:
            listed = ", ".join(addresses)
            return Bad(f"host {describe(host)} has {len(addresses)} addresses, name one of them: {listed}")
        return addresses[0]


def _numeric(host: str) -> str:
    """A numeric address in its shortest notation, a scope (`fe80::1%eth0`) with it; empty for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        address, percent, scope = host.partition("%") if family == socket.AF_INET6 else (host, "", "")
        if percent and not _is_scope(scope):
            continue
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, address)) + percent + scope
        except (OSError, ValueError):
            continue
    return ""


def _is_scope(scope: str) -> bool:
    """The name of an interface, which need not exist yet, or its number."""
    if is_digits(scope):
        return len(scope) <= 10 and int(scope) < 2**32
    return _INTERFACE.fullmatch(scope) is not None


def has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def _port(name: str, protocol: str) -> int | None:
    try:
        return socket.getservbyname(name, protocol)
    except (OSError, ValueError):  # a ValueError: NUL, or not UTF-8
        return None


def _services() -> list[str]:
    try:
        with open("/etc/services", encoding="utf-8", errors="replace") as lines:
            return [line.split(None, 1)[0] for line in lines if line[:1].isalnum()]
    except OSError:
        return []
