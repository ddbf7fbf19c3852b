"""Every key that a network namespace can have, and what converts its value.

Those of `OPTIONS` go to the worker; the others mean what they mean for every service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor.definitions.convert import number, text
from supervisor.definitions.netns import addresses, resolver
from supervisor.definitions.netns.interface import interface
from supervisor.definitions.netns.sysctl import sysctl
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope

Convert = Callable[[Any, Scope], Any]

LEAST_MTU = {4: 68, 6: 1280}  # RFC 791, RFC 8200
LARGEST_MTU = 65535


def _setup(value: object, scope: Scope) -> str | bool:
    return False if value is False else text.absolute(value, scope)


def _time_limit(value: object, scope: Scope) -> float:
    seconds = number.duration(value, scope)
    if seconds == 0:
        raise Bad("0 is too short")
    return seconds


OPTIONS: dict[str, Convert] = {
    "setup": _setup,
    "setup_timeout": _time_limit,
    "link": interface,
    "peer": interface,
    "inside": interface,
    "addresses": addresses.addresses("addresses"),
    "gateway": addresses.gateways,
    "routes": addresses.routes,
    "host_addresses": addresses.addresses("host_addresses"),
    "mtu": number.integer(LEAST_MTU[4], LARGEST_MTU),
    "mac": addresses.hardware_address,
    "loopback": number.boolean,
    "sysctl": sysctl,
    "dns": resolver.dns,
}

COMMON = (
    "description", "status", "depends", "after", "conflicts", "stdout", "stderr", "healthy_after", "backoff",
    "start_limit", "start_timeout", "stop_timeout", "oom_score_adj",
)  # fmt: skip
