"""Every key that a network namespace can have, with its converter.

The keys of `OPTIONS` go to the worker; the others mean the same as for every service.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert import plain
from supervisor.definitions.convert.plain import text, word
from supervisor.definitions.convert.tables import names, one_or_more
from supervisor.definitions.netns import addresses
from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.values import describe

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
    "addresses": addresses.addresses("addresses"),
    "gateway": addresses.gateways,
    "routes": addresses.routes,
    "host_addresses": addresses.addresses("host_addresses"),
    "mtu": plain.integer(LEAST_MTU[4], LARGEST_MTU),
    "mac": addresses.hardware_address,
    "loopback": plain.boolean,
    "sysctl": sysctl,
    "dns": dns,
}
