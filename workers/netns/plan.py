"""The plan of a network namespace: the checked options of its definition."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

from supervisor.errors import SpawnError
from supervisor.places import SYSCONFDIR
from workers.network.view import IPV6_METRIC, MAIN_TABLE, Route, route_text

SETUP_FOLDER = f"{SYSCONFDIR}/cm4all/spawn/netns/setup.d"


class NetnsError(SpawnError):
    """Root of all exceptions that this worker itself raises."""


class OptionsError(NetnsError):
    """The options of the definition are wrong."""


class ForeignError(NetnsError):
    """An object of another owner is in the way, and stays."""


class SetUpError(NetnsError):
    """The namespace cannot be set up."""


@dataclass(frozen=True, slots=True)
class PlannedRoute:
    """A route inside. The kernel chooses the values that are None."""

    to: str
    via: str = ""
    source: str | None = None
    metric: int | None = None
    table: int | None = None
    onlink: bool = False

    def __str__(self) -> str:
        return route_text(self.to, self.via)

    def at(self, index: int) -> Route:
        """Return the route as the kernel shows it, over the interface `index`."""
        metric = self.metric or (IPV6_METRIC if ":" in self.to else 0)
        return Route(self.to, self.via, index, metric, self.table or MAIN_TABLE)


@dataclass(frozen=True, slots=True)
class Plan:
    """`link` is the end on the host, `inside` the other end, which may have a second name, `peer`.

    `setup` is the path of the setup script; None stands for the script in SETUP_FOLDER, if it exists, and ''
    for none. `dns` is the text of `/etc/netns/NAME/resolv.conf`.
    """

    name: str
    link: str
    inside: str
    peer: str
    addresses: tuple[str, ...]
    host_addresses: tuple[str, ...]
    routes: tuple[PlannedRoute, ...]
    mtu: int | None
    mac: str | None
    loopback: bool
    sysctl: dict[str, str]
    dns: str | None
    setup: str | None
    setup_timeout: float

    @property
    def owner(self) -> str:
        """The alias of a link that belongs to this namespace: ip-link(8)."""
        return f"spawnd netns@{self.name}"

    @property
    def keeps_host(self) -> bool:
        """Whether this worker sets up the end on the host; otherwise systemd-networkd does, for example."""
        return bool(self.host_addresses)

    def script(self) -> str:
        """Return the path of the setup script, '' if there is none."""
        if self.setup is not None:
            return self.setup
        path = f"{SETUP_FOLDER}/{self.name}"
        return path if os.path.exists(path) else ""


def read_plan(options: dict[str, Any]) -> Plan:
    """Return the plan in the options of a definition. Raises OptionsError."""
    try:
        return _plan(options)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise OptionsError(f"cannot use options: {type(error).__name__}: {error}") from error


def _plan(options: dict[str, Any]) -> Plan:
    setup = options.get("setup")
    return Plan(
        str(options["name"]),
        str(options["link"]),
        str(options.get("inside", "net0")),
        str(options.get("peer", "")),
        tuple(map(_plain, options.get("addresses", ()))),
        tuple(map(_plain, options.get("host_addresses", ()))),
        tuple(_route(**route) for route in options.get("routes", ())),
        options.get("mtu"),
        options.get("mac"),
        bool(options.get("loopback", True)),
        dict(options.get("sysctl", {})),
        _resolver(str(options["name"]), options["dns"]) if "dns" in options else None,
        "" if setup is False else setup,
        float(options.get("setup_timeout", 30.0)),
    )


def _route(to: str, via: str = "", **more: Any) -> PlannedRoute:
    return PlannedRoute(_plain(to), _plain(via) if via else "", **more)


def _plain(address: str) -> str:
    """Return an address, with or without a prefix, in the form of inet_ntop(3), as the kernel's messages show it."""
    host, slash, prefix = address.partition("/")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, host)) + slash + prefix


def written_by(name: str) -> str:
    """Return the first line of a resolv.conf that this worker has written."""
    return f"# Written by spawnd for netns@{name}; it is removed with the network namespace.\n"


def _resolver(name: str, dns: dict[str, list[str]]) -> str:
    lines = [f"nameserver {server}\n" for server in dns.get("nameservers", ())]
    lines += [f"{key} {' '.join(dns[key])}\n" for key in ("search", "options") if dns.get(key)]
    return written_by(name) + "".join(lines)
