"""The program `acceptor`, which starts a session for each client, and its options.

`Options` become bytes for a sealed memfd, in the format of `options.h`. Times are seconds here.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from ipaddress import IPv4Network, IPv6Network, ip_network

from supervisor.launch.session_table import MOST_SESSIONS

RESERVE = 3  # the number of /dev/null in the acceptor, and of the connection in the plan of a session
LOGGED = ("none", "failures", "all")

_MAGIC, _VERSION = 0x50434341, 2
_NUMBERS = 29
_HEAD = struct.Struct("=4I")
_LIST = struct.Struct("=2I")
_ENTRY = struct.Struct("=2HI16s")
_LAST_ERRNO = 133  # EHWPOISON
_FIRST_GROUP, _FIRST_USER = 3, 2
_MAPPED = bytes(10) + b"\xff\xff"
_DAY, _WEEK = 86400, 7 * 24 * 60  # seconds, minutes

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class User:
    """A user, or a group, as entry of an access list for Unix sockets."""

    id: int
    is_group: bool = False


Entry = Network | User


def entry_of(text: str, id: int) -> Entry:
    """Return the entry of a network, whose `id` is negative, or else of a user or an @group."""
    return ip_network(text) if id < 0 else User(id, is_group=text.startswith("@"))


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `burst` starts at once, and one more after each `interval`."""

    interval: float
    burst: int = 1

    @classmethod
    def of(cls, rate: tuple[int, int] | None, burst: int | None = None) -> Rate | None:
        """Return the rate of a number in some seconds; all of these may be at once, or else `burst`."""
        return None if rate is None else cls(rate[1] / rate[0], burst or rate[0])


@dataclass(frozen=True, slots=True)
class Options:
    """Options of an acceptor. Descriptors are numbers in the acceptor, and -1 where there is none.

        `memory` is /proc/meminfo, `processes` the directory /proc, `denied` the table of `open_denied`, which only a
    trap     may write to. `sessions` is the folder for cgroups of sessions; `limits` has files and contents of each.
    `hours` are minutes of the week from Monday on, each range without its end, which may be after that of     the week;
    `zone` has the changes of local time. `per_source` is 0 for no limit; `load_max` and `memory_min`, in     bytes, are
    None. `session_timeout` is 0 for none; `linger` is None for an acceptor that stays. `logged` is one of     LOGGED.
    """

    plan: int
    table: int
    processes: int
    listeners: tuple[int, ...]
    denied: int = -1
    banner: int = -1
    refused_banner: int = -1
    memory: int = -1
    sessions: int = -1
    limits: Mapping[str, str] = field(default_factory=dict)
    max: int = 256
    per_source: int = 0
    v4_bits: int = 32
    v6_bits: int = 64
    rate: Rate | None = None
    source_rate: Rate | None = None
    load_max: float | None = None
    memory_min: int | None = None
    refuses: bool = False
    is_trap: bool = False
    deny_time: float = 3600
    session_timeout: float = 0
    stop_signal: int = 15
    stop_timeout: float = 10
    nodelay: bool = False
    keepalive: bool = False
    linger: float | None = 10
    logged: str = "failures"
    only_from: tuple[Entry, ...] | None = None
    no_access: tuple[Entry, ...] = ()
    hours: tuple[tuple[int, int], ...] = ()
    zone: tuple[tuple[int, int], ...] = ()


def encode(options: Options) -> bytes:
    """Return the bytes of the options."""
    limits = b"".join(f"{file}\0{text}\0".encode() for file, text in options.limits.items())
    lists = [
        (len(options.listeners), struct.pack(f"={len(options.listeners)}q", *options.listeners)),
        _entries(options),
        _pairs(_in_week(options.hours)),
        _pairs(options.zone),
        (_LAST_ERRNO + 1, _ERRORS),
        (len(limits), limits),
    ]
    begin = _HEAD.size + 8 * _NUMBERS + _LIST.size * len(lists)
    heads, body = b"", b""
    for count, data in lists:
        heads += _LIST.pack(begin + len(body), count)
        body += data + bytes(-len(data) % 8)
    size = begin + len(body) + 8  # the last byte is NUL
    return _HEAD.pack(_MAGIC, _VERSION, size, 0) + _numbers(options) + heads + body + bytes(8)


def sealed(name: str, data: bytes) -> int:
    """Return a memfd that nobody can change, which the caller owns. Raises OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, data)  # a memfd takes all of it
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    except OSError:
        os.close(fd)
        raise
    return fd


def _numbers(options: Options) -> bytes:
    rate, source_rate = options.rate, options.source_rate
    return struct.pack(
        f"={_NUMBERS}q",
        *(options.plan, options.table, options.denied, options.banner, options.refused_banner, options.memory),
        *(options.processes, options.sessions),
        *(min(options.max, MOST_SESSIONS), options.per_source, options.v4_bits, options.v6_bits),
        *(*_rate(rate), *_rate(source_rate)),
        -1 if options.load_max is None else round(options.load_max * 65536),
        -1 if options.memory_min is None else options.memory_min,
        *(options.refuses, options.is_trap, _ns(options.deny_time)),
        *(_ns(options.session_timeout), options.stop_signal, _ns(options.stop_timeout)),
        *(options.nodelay, options.keepalive),
        -1 if options.linger is None else _ns(options.linger),
        *(LOGGED.index(options.logged), options.only_from is not None),
    )


def _ns(seconds: float) -> int:
    return min(round(seconds * 1e9), 1 << 61)


def _rate(rate: Rate | None) -> tuple[int, int]:
    """Return the time for each start, and the time that may be used up in advance."""
    return (0, 0) if rate is None else (_ns(rate.interval), _ns(rate.interval * (rate.burst - 1)))


def _pairs(pairs: Sequence[tuple[int, int]]) -> tuple[int, bytes]:
    return len(pairs), b"".join([struct.pack("=2q", *pair) for pair in pairs])


def _in_week(hours: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return hours with those after the end of the week at its beginning."""
    later = [(0, end - _WEEK) for _begin, end in hours if end > _WEEK]
    return [(begin, min(end, _WEEK)) for begin, end in hours] + later


def _entries(options: Options) -> tuple[int, bytes]:
    """Return the entries of both lists, the most specific ones first; of two that are equal, `no_access` decides."""
    entries = [(*_specific(entry), allowed, entry) for allowed, entry in _both_lists(options)]
    entries.sort(key=lambda entry: entry[:3])
    return len(entries), b"".join([_entry(each, bool(allowed)) for *_, allowed, each in entries])


def _both_lists(options: Options) -> Iterator[tuple[int, Entry]]:
    yield from ((0, entry) for entry in options.no_access)
    yield from ((1, entry) for entry in options.only_from or ())


def _specific(entry: Entry) -> tuple[int, int]:
    if isinstance(entry, User):
        return 0, int(entry.is_group)
    return 1, -entry.prefixlen


def _entry(entry: Entry, is_allowed: bool) -> bytes:
    if isinstance(entry, User):
        return _ENTRY.pack(_FIRST_GROUP if entry.is_group else _FIRST_USER, is_allowed, entry.id, bytes(16))
    address = entry.network_address.packed
    if isinstance(entry, IPv4Network):
        return _ENTRY.pack(0, is_allowed, 96 + entry.prefixlen, _MAPPED + address)
    return _ENTRY.pack(1, is_allowed, entry.prefixlen, address)


_ERRORS = b"".join([os.strerror(number).encode() + b"\0" for number in range(_LAST_ERRNO + 1)])


def local_offset(second: int) -> int:
    """Return the offset of local time from UTC in seconds, by the time zone that the C library has read."""
    return time.localtime(second).tm_gmtoff


def zone_changes(offset_at: Callable[[int], int], now: int, years: int = 10) -> tuple[tuple[int, int], ...]:
    """Return the seconds of UTC from which an offset of local time holds, with that, for the next years.

    Two changes within 8 days count as none.
    """
    found = [(now, offset_at(now))]
    for at in range(now, now + 366 * _DAY * years, 8 * _DAY):
        offset = offset_at(at + 8 * _DAY)
        if offset != found[-1][1]:
            found.append((_first_change(offset_at, at, at + 8 * _DAY), offset))
    return tuple(found)


def _first_change(offset_at: Callable[[int], int], low: int, high: int) -> int:
    old = offset_at(low)
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(middle) == old:
            low = middle
        else:
            high = middle
    return high
