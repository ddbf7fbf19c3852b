"""Every key that a network namespace can have, with its converter.

The keys of `OPTIONS` go to the worker; the others mean the same as for every service.
Addresses, routes and hardware addresses are in the format of the worker: text in its shortest form.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert import plain
from supervisor.definitions.convert.plain import boolean, integer, text, word
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

LONGEST = 15  # IFNAMSIZ is 16, with a NUL
RESERVED = frozenset({".", "..", "all", "default", "lo"})  # `all` and `default` are folders of net.ipv4.conf

_LEGAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,14}")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_.-]")
_HEAD, _TAIL = 8, 6

Words = dict[str, list[str]]
Convert = Callable[[Any, Checking], Any]
LEAST_MTU = {4: 68, 6: 1280}  # RFC 791, RFC 8200
LARGEST_MTU = 65535
COMMON = (
    "description", "status", "depends", "after", "conflicts", "stdout", "stderr", "healthy_after", "backoff",
    "start_limit", "start_timeout", "stop_timeout", "oom_score_adj",
)  # fmt: skip


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


pass


def is_interface_name(name: str) -> bool:
    """Whether an interface can have this name, and tools accept it."""
    return _LEGAL.fullmatch(name) is not None and name not in RESERVED


def interface(value: object, checking: Checking) -> str:
    name = text(value, checking)
    if not is_interface_name(name):
        rule = f"1 to {LONGEST} of A-Z a-z 0-9 _ . + -, the first one a letter, a digit or '_'"
        what = f"{describe(value)} cannot be the name of an interface"
        raise InvalidValue(f"{what}: {rule}, and not {', '.join(_reserved())}")
    return name


def _reserved() -> list[str]:
    return sorted(name for name in RESERVED if name.isalpha())


def link_name(namespace: str) -> str:
    """Return the name of the link on the host: the namespace's name, or one that is derived from it reproducibly."""
    if is_interface_name(namespace):
        return namespace
    digest = hashlib.sha256(namespace.encode()).hexdigest()
    return f"{_ILLEGAL.sub('_', namespace)[:_HEAD]}-{digest[:_TAIL]}"


def dns(value: object, checking: Checking) -> Words:
    """Return a list of name servers, or a table with `nameservers`, `search` and `options`."""
    if isinstance(value, list | str):
        return {"nameservers": one_or_more(value, checking, _server, "dns")}
    found: Words = {}
    given: dict[str, Any] = names(value, '{ nameservers = { "192.0.2.53" }, search = { "example.com" } }')
    for name, words in sorted(given.items()):
        try:
            if name not in _PARTS:
                raise InvalidValue("unknown key" + did_you_mean(name, _PARTS))
            found[name] = one_or_more(words, checking, _PARTS[name], "dns", name)
        except InvalidValue as error:
            checking.invalid(error, "dns", name)
    return found


def _server(value: object, checking: Checking) -> str:
    written = text(value, checking)
    try:
        ip_address(written)
    except ValueError:
        raise InvalidValue(f"{describe(value)} is not the address of a name server") from None
    return written


def _word(value: object, checking: Checking) -> str:
    written = text(value, checking)
    if not written.isprintable() or len(written.split()) != 1 or written[0] in "#;":
        raise InvalidValue(f"{describe(value)} is not a word")
    return written


_PARTS: dict[str, Callable[[object, Checking], str]] = {"nameservers": _server, "search": _word, "options": _word}


def sysctl(value: object, checking: Checking) -> dict[str, str]:
    """Return settings by path below `/proc/sys`.

    Names have dots, or slashes if an interface's name has dots: sysctl(8).
    """
    found: dict[str, str] = {}
    given: dict[str, Any] = names(value, '{ ["net.ipv4.ip_forward"] = 1 }')
    for name, setting in sorted(given.items()):
        try:
            path = _path(name)
            if path in found:
                raise InvalidValue("is given twice")
            found[path] = _setting(setting)
        except InvalidValue as error:
            checking.invalid(error, "sysctl", name)
    return found


def _path(name: str) -> str:
    path = name if "/" in name else name.replace(".", "/")
    parts = path.split("/")
    if not path.isprintable() or len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        raise InvalidValue(f"{describe(name)} is not the name of a setting")
    if parts[0] != "net":
        raise InvalidValue(f"{describe(name)} is not a setting of a network namespace: those begin with 'net.'")
    return path


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    text = word(value)
    if not text or "\n" in text:
        raise InvalidValue(f"{describe(value)} cannot be the value of a setting")
    return text


def _setup(value: object, checking: Checking) -> str | bool:
    return False if value is False else plain.absolute(value, checking)


def _time_limit(value: object, checking: Checking) -> float:
    seconds = plain.duration(value, checking)
    if seconds == 0:
        raise InvalidValue("0 is too short")
    return seconds


OPTIONS: dict[str, Convert] = {
    "setup": _setup,
    "setup_timeout": _time_limit,
    "link": interface,
    "peer": interface,
    "inside": interface,
    "addresses": addresses("addresses"),
    "gateway": gateways,
    "routes": routes,
    "host_addresses": addresses("host_addresses"),
    "mtu": plain.integer(LEAST_MTU[4], LARGEST_MTU),
    "mac": hardware_address,
    "loopback": plain.boolean,
    "sysctl": sysctl,
    "dns": dns,
}
