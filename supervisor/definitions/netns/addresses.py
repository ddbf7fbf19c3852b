"""Addresses, routes and hardware addresses of interfaces, in the format of the worker: text in its shortest form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert.plain import boolean, integer, text
from supervisor.definitions.convert.tables import each, items, names, one_or_more
from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.values import describe

Interface = IPv4Interface | IPv6Interface
Route = dict[str, Any]

ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
MAX_U32 = 2**32 - 1
LEAST_METRIC = {4: 0, 6: 1024}  # of a route without a metric
MAIN_TABLE = 254

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def addresses(key: str) -> Callable[[object, Checking], list[str]]:
    """Return a converter for addresses of an interface, `ADDRESS/PREFIX`, a list or a single one."""

    def convert(value: object, checking: Checking) -> list[str]:
        found = one_or_more(value, checking, _interface_address, key)
        for address in found:
            if found.count(address) > 1:
                raise InvalidValue(f"{address} is given twice")
        return found

    return convert


def _interface_address(value: object, checking: Checking) -> str:
    written = text(value, checking)
    try:
        found: Interface = ip_interface(written)
    except ValueError:
        example = 'like "192.0.2.2/24" or "2001:db8::2/64"'
        raise InvalidValue(f"{describe(value)} is not an address of an interface, {example}") from None
    if "%" in written or found.ip.is_multicast or found.ip.is_unspecified:
        raise InvalidValue(f"{describe(value)} cannot be the address of an interface")
    network = found.network
    reserved = (network.network_address, network.broadcast_address)
    if isinstance(found, IPv4Interface) and network.prefixlen < 31 and found.ip in reserved:
        what = "the network itself" if found.ip == network.network_address else "all that are in it"
        raise InvalidValue(f"{describe(value)} is the address of {what}, not of an interface in {network}")
    return found.with_prefixlen


def gateways(value: object, checking: Checking) -> list[Route]:
    """Return the default routes via one address, or one of each family."""
    found = one_or_more(value, checking, _address, "gateway")
    families = [ip_address(address).version for address in found]
    if len(families) != len(set(families)):
        raise InvalidValue("there is one gateway for each family; others are routes with a metric")
    return [{"to": ANYWHERE[family], "via": address} for family, address in zip(families, found, strict=True)]


def _address(value: object, checking: Checking) -> str:
    written = text(value, checking)
    try:
        found = ip_address(written)
    except ValueError:
        raise InvalidValue(f"{describe(value)} is not an address") from None
    if "%" in written or found.is_multicast or found.is_unspecified or found.is_loopback:
        raise InvalidValue(f"{describe(value)} cannot be the address of another host")
    return str(found)


def routes(value: object, checking: Checking) -> list[Route]:
    """Return the routes inside: `"NETWORK via GATEWAY"`, `"NETWORK"` for a route on the link, or a table."""
    return each(items(value, "routes"), checking, _route, "routes")


_ROUTE: dict[str, Callable[[object, Checking], Any]] = {
    "to": text,
    "via": _address,
    "source": _address,
    "metric": integer(1, MAX_U32),
    "table": integer(1, MAX_U32),
    "onlink": boolean,
}


def _route(value: object, checking: Checking) -> Route:
    if isinstance(value, str):
        to, *rest = value.split()
        if rest and (len(rest) != 2 or rest[0] != "via"):
            raise InvalidValue(f'{describe(value)} is not a route, like "198.51.100.0/24 via 192.0.2.1"')
        value = {"to": to, "via": rest[1]} if rest else {"to": to}
    found: Route = {}
    for name, setting in sorted(names(value, '{ to = "198.51.100.0/24", via = "192.0.2.1" }').items()):
        if name not in _ROUTE:
            raise InvalidValue(f"unknown key {describe(name)}" + did_you_mean(name, _ROUTE), name)
        try:
            found[name] = _ROUTE[name](setting, checking)
        except InvalidValue as error:
            raise InvalidValue(error.message, name) from None
    if "to" not in found:
        raise InvalidValue('has no destination, like to = "198.51.100.0/24"')
    found["to"] = _destination(found)
    _check_route(found)
    return found


def _destination(route: Route) -> str:
    to = route["to"]
    if to == "default":
        if "via" not in route:
            raise InvalidValue('a default route without a gateway says of which family it is: "0.0.0.0/0" or "::/0"')
        return ANYWHERE[ip_address(route["via"]).version]
    try:
        return ip_network(to).with_prefixlen
    except ValueError:
        pass
    try:
        meant = ip_network(to, strict=False)
    except ValueError:
        raise InvalidValue(f"{describe(to)} is not a network, like \"198.51.100.0/24\" or \"default\"") from None
    raise InvalidValue(f"{describe(to)} is not a network, did you mean {meant.with_prefixlen!r}?")


def _check_route(route: Route) -> None:
    if route.get("onlink") and "via" not in route:
        raise InvalidValue("is for a route by way of a gateway", "onlink")
    version = ip_network(route["to"]).version
    for key in ("via", "source"):
        if key in route and ip_address(route[key]).version != version:
            raise InvalidValue(f"{route[key]} and {route['to']} are not of one family", key)


def place(route: Route) -> tuple[str, int, int]:
    """Return the key of a route in the kernel: a second route with the same key would replace the first."""
    metric = route.get("metric", LEAST_METRIC[ip_network(route["to"]).version])
    return route["to"], metric, route.get("table", MAIN_TABLE)


def unreachable(route: Route, own: Iterable[str], others: Iterable[Route]) -> bool:
    """Return whether no route leads to the gateway of a route, so that the kernel would refuse it."""
    if "via" not in route or route.get("onlink"):
        return False
    gateway = ip_address(route["via"])
    if gateway.version == 6 and gateway.is_link_local:
        return False
    on_link = [ip_network(other["to"]) for other in others if "via" not in other]
    return not any(gateway in network for network in [*(ip_interface(address).network for address in own), *on_link])


def hardware_address(value: object, checking: Checking) -> str:
    """Return the hardware address of one interface rather than a group."""
    written = text(value, checking).lower()
    if not _MAC.fullmatch(written):
        raise InvalidValue(f'{describe(value)} is not a hardware address, like "02:00:00:00:00:01"')
    if int(written[:2], 16) & 1 or not int(written.replace(":", ""), 16):
        raise InvalidValue(f"{describe(value)} cannot be the hardware address of an interface")
    return written
