"""Users and groups, each as name and id, and `accept`: the clients that a service lets in, and its sessions.

Without root no user is switched: the ids are those of the caller, and a name that this host does not know is
only noted. The clients of a Unix socket have their own ids all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert.plain import (
    absolute,
    boolean,
    choice,
    duration,
    integer,
    positive_timeout,
    timeout,
    usable,
)
from supervisor.definitions.convert.tables import names, one_or_more
from supervisor.definitions.databases import is_interface
from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.scalars import hours, rate, size
from supervisor.definitions.service import NETWORK, Accept, Client, Descriptor
from supervisor.definitions.values import describe, is_digits, is_integer, is_number, table

UNKNOWN = -1
MOST_SESSIONS = 16384  # as in session_table.py
MOST_ENTRIES = 4096  # of a list of clients
SILENCE = 60.0  # seconds of a client after which the kernel lets it in, unless the definition says another time

Account = tuple[str, int]


def user(value: object, checking: Checking) -> Account:
    name = _name(value)
    uid = _find(checking, "user", name, checking.databases.accounts.user)
    return name, uid if checking.databases.root else os.geteuid()


def group(value: object, checking: Checking) -> Account:
    name = group_name(value, checking)
    gid = _find(checking, "group", name, checking.databases.accounts.group)
    return name, gid if checking.databases.root else os.getegid()


def groups(value: object, checking: Checking) -> tuple[Account, ...]:
    return tuple(dict.fromkeys(one_or_more(value, checking, group, "groups")))


def owner_id(value: object, checking: Checking) -> int | None:
    """Return the user who gets a file or socket; None leaves it unchanged."""
    uid = _find(checking, "owner", _name(value), checking.databases.accounts.user)
    return None if uid == UNKNOWN else uid


def group_id(value: object, checking: Checking) -> int | None:
    """Return the group that gets a file, a socket or the control socket; None leaves it unchanged."""
    gid = _find(checking, "group", group_name(value, checking), checking.databases.accounts.group)
    return None if gid == UNKNOWN else gid


def group_name(value: object, checking: Checking) -> str:
    """Return the name on this host: `nobody` is `nogroup` on Debian."""
    name = _name(value)
    return checking.databases.accounts.nobody()[2] if name == "nobody" else name


def _name(value: object) -> str:
    if is_integer(value):
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidValue(f"has to be a name or a number, not {describe(value)}")
    return usable(value)


def _find(checking: Checking, key: str, name: str, look_up: Callable[[str], int]) -> int:
    try:
        return look_up(name)
    except InvalidValue as error:
        if checking.databases.root:
            raise
        checking.notice(f"{error.message}; not switched to without root", key)
        return UNKNOWN


def accept(value: object, checking: Checking) -> Accept | None:
    """Return the options of an acceptor, None for `false`."""
    if isinstance(value, bool):
        return Accept() if value else None
    good: dict[str, Any] = {}
    if table(value) is None:
        raise InvalidValue(f"has to be true, or a table with names, like {{ max = 100 }}, not {describe(value)}")
    given = names(value, "{ max = 100 }")
    for name, setting in sorted(given.items()):
        try:
            if name not in _ACCEPT:
                raise InvalidValue("unknown" + _meant(name))
            found = _ACCEPT[name](setting, checking)
            good |= found if isinstance(found, dict) else {name: found}
        except InvalidValue as error:
            checking.invalid(error, "accept", name)
    for name, needed in _NEEDS.items():
        if name in good and not given.get(needed):
            checking.problem(f"goes with {needed} alone", "accept", name)
    if good.get("trap"):
        for name in sorted(_OF_SESSIONS & good.keys()):
            checking.problem("is about sessions, and a trap has none", "accept", name)
    return Accept(**good)


def _meant(name: str) -> str:
    from supervisor.definitions import synonyms  # only an error needs it

    return synonyms.rule(name) or did_you_mean(name, _ACCEPT)


def _connection(value: object, checking: Checking) -> int:
    if value not in (0, 3) or isinstance(value, bool):
        raise InvalidValue(f"has to be 0, the connection is descriptors 0 and 1, or 3, not {describe(value)}")
    return 0 if value == 0 else 3


def _per_source(value: object, checking: Checking) -> dict[str, int]:
    """Return the fields for a number, or a table with the bits of an address that make a source."""
    if value is False:
        return {"per_source": 0}
    if table(value) is None:
        return {"per_source": integer(1, MOST_SESSIONS)(value, checking)}
    given = names(value, "{ n = 10, v6 = 56 }")
    if "n" not in given:
        raise InvalidValue("has to say n, the number of sessions")
    good = {}
    for name, setting in sorted(given.items()):
        if name not in _BITS:
            raise InvalidValue(f"{describe(name)} is unknown, it has n, v4 and v6")
        try:
            good["per_source" if name == "n" else name] = integer(1, _BITS[name])(setting, checking)
        except InvalidValue as error:
            checking.invalid(error, "accept", "per_source", name)
    return good


def _or_false(convert: Callable[[object], Any]) -> Callable[[object, Checking], Any]:
    """Return a converter that takes `false`, too, for None."""
    return lambda value, checking: None if value is False else convert(value)


def _load(value: object) -> float:
    if not is_number(value) or not 0 < float(str(value)) <= 1_000_000:
        raise InvalidValue(f"has to be a load average above 0, as uptime(1) shows it, not {describe(value)}")
    return float(str(value))


def _memory(value: object) -> int:
    found = size(value)
    if found == 0:
        raise InvalidValue("0 is no limit; false means none")
    return found


def _clients(key: str) -> Callable[[object, Checking], tuple[Client, ...]]:
    def convert(value: object, checking: Checking) -> tuple[Client, ...]:
        found = tuple(dict.fromkeys(one_or_more(value, checking, _client, "accept", key)))
        if len(found) > MOST_ENTRIES:
            raise InvalidValue(f"has {len(found)} entries, {MOST_ENTRIES} are possible")
        return found

    return convert


def _client(value: object, checking: Checking) -> Client:
    """Return the entry of a list: an address, a network, a user, or a group behind an `@`."""
    text = str(value) if is_integer(value) else value
    if not isinstance(text, str) or not text:
        raise InvalidValue(f"has to be an address, a network, a user or an @group, not {describe(value)}")
    accounts = checking.databases.accounts
    if usable(text).startswith("@"):
        name = group_name(text[1:], checking)
        return f"@{name}", accounts.group(name)
    if set(text) & set(".:/"):
        return _network(text, checking), NETWORK
    try:
        return text, accounts.user(text)
    except InvalidValue as error:
        raise InvalidValue(f"{error.message}; hosts have addresses here, {_NO_LOOKUP}") from None


_NO_LOOKUP = "as names are never looked up"


def _network(text: str, checking: Checking) -> str:
    """Return an address or a network in its shortest notation. Raises InvalidValue."""
    from ipaddress import ip_address, ip_network  # few definitions need it

    host, slash, prefix = text.partition("/")
    if "%" in host:
        raise InvalidValue(f"{describe(text)} has a scope: say by accept.interface from where clients come")
    try:
        address = ip_address(host)
    except ValueError:
        like = 'write "192.0.2.7" or "192.0.2.0/24"'
        raise InvalidValue(f"{describe(text)} is neither an address nor a network: {like}, {_NO_LOOKUP}") from None
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        last = address.max_prefixlen
        raise InvalidValue(f"{describe(prefix)} is not the length of a prefix, they go from 0 to {last}") from None
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None and found.prefixlen >= 96:
        raise InvalidValue(f"an IPv4 client has an IPv4 address, write '{mapped}/{found.prefixlen - 96}'")
    if slash and not is_digits(prefix):
        raise InvalidValue(f"{describe(text)} has a mask, write '{found}'")
    if found.network_address != address:
        network = f"'{found}' for the network, or '{host}' for the address"
        raise InvalidValue(f"{describe(text)} has bits behind its prefix, write {network}")
    if not slash and int(address) == 0:
        raise InvalidValue(f"{describe(text)} is no client's address, write '{host}/0' for all of them")
    if not slash and host.endswith(".0"):
        checking.notice(f"{describe(text)} is one address; a network has a prefix, like '{text}/24'", "accept")
    return str(address) if found.prefixlen == found.max_prefixlen else str(found)


def _hours(value: object, checking: Checking) -> tuple[tuple[int, int], ...]:
    found = one_or_more(value, checking, lambda each, checking: hours(each), "accept", "hours")
    if not found:
        raise InvalidValue("has no entry, so nobody would ever be let in")
    return tuple(sorted({span for spans in found for span in spans}))


def silence(value: object, checking: Checking) -> float | None:
    """Return the seconds after which the kernel lets a silent client in, None for at once."""
    if isinstance(value, bool):
        return SILENCE if value else None
    seconds = duration(value, checking)
    if not 1 <= seconds <= LONGEST_SILENCE:
        raise InvalidValue(f"{describe(value)} is out of range, from 1s to {LONGEST_SILENCE // 60}m")
    return seconds


LONGEST_SILENCE = 600  # seconds


def interface(value: object, checking: Checking) -> str:
    """Return the name of a network interface, which need not exist yet; `false` is none."""
    if value is False:
        return ""
    if not isinstance(value, str) or not is_interface(value):
        raise InvalidValue(f'has to be the name of a network interface, like "eth0", not {describe(value)}')
    return value


_BITS = {"n": MOST_SESSIONS, "v4": 32, "v6": 128}
_NEEDS = {"burst": "rate", "deny_time": "trap"}
_OF_SESSIONS = {
    *("descriptor", "max", "per_source", "rate", "burst", "source_rate", "load_max", "memory_min", "on_limit"),
    *("banner", "session_timeout", "session_cgroup", "nodelay", "keepalive"),
}
_ACCEPT: dict[str, Callable[[Any, Checking], Any]] = {
    "descriptor": _connection,
    "max": integer(1, MOST_SESSIONS),
    "per_source": _per_source,
    "rate": _or_false(rate),
    "burst": integer(1, 1_000_000),
    "source_rate": _or_false(rate),
    "only_from": _clients("only_from"),
    "no_access": _clients("no_access"),
    "hours": _hours,
    "load_max": _or_false(_load),
    "memory_min": _or_false(_memory),
    "on_limit": choice("on_limit", "wait", "refuse"),
    "banner": absolute,
    "banner_refused": absolute,
    "trap": boolean,
    "deny_time": positive_timeout,
    "session_timeout": positive_timeout,
    "nodelay": boolean,
    "keepalive": boolean,
    "defer_accept": silence,
    "interface": interface,
    "linger": timeout,
    "session_log": choice("session_log", "failures", "all", "none"),
    "session_cgroup": boolean,
}


def check_clients(accept: Accept, given: object, sockets: Sequence[Descriptor], checking: Checking) -> None:
    """Check that the rules fit the listening sockets, which have clients with addresses, or with users.

    `given` is the value as it is written, None for one of `_DEFAULT`.
    """
    rules = table(given) or {}
    unix = next((spec.describe() for spec in sockets if spec.kind != "tcp"), "")
    has_tcp = any(spec.kind == "tcp" for spec in sockets)
    wrong = {
        "trap": accept.trap and f"denies addresses, and clients of {unix} have none",
        "defer_accept": accept.defer_accept and f"is an option of TCP: the kernel cannot hold back clients of {unix}",
        "interface": accept.interface and f"is about a network, and clients of {unix} come from this host",
    }
    for name, text in wrong.items():
        if unix and text:
            checking.problem(text, "accept", name)
    for name in ("only_from", "no_access"):
        entries = getattr(accept, name) or ()
        # the entries that are wrong are not among them
        is_complete = len(entries) == len(written) if isinstance(written := rules.get(name), list) else False
        for number, (text, id) in enumerate(entries, 1):
            place = ("accept", name, number) if is_complete else ("accept", name)
            if id == NETWORK and not has_tcp:
                checking.problem(f"{text!r} is an address, and {unix} has users as clients", *place)
            if id != NETWORK and not unix:
                why = f"and no socket in fd is a Unix socket; for a host write its address, {_NO_LOOKUP}"
                checking.problem(f"{text!r} is a user or a group, {why}", *place)
    _check_all_are_named(accept.only_from, has_tcp, unix, checking)


def _check_all_are_named(only_from: Iterable[Client] | None, has_tcp: bool, unix: str, checking: Checking) -> None:
    """Note sockets whose clients are all refused, because those of another one are listed."""
    listed = {id == NETWORK for _text, id in only_from or ()}
    if listed == {False} and has_tcp:
        checking.notice('lists users alone, so no TCP client is let in: "0.0.0.0/0" and "::/0" are all', "accept")
    if listed == {True} and unix:
        checking.notice(f"only_from lists networks alone, so no client of {unix} is let in", "accept")
