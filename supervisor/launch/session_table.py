"""The table of an acceptor: counters, and a slot for each session, in a memfd with the format of `table.h`.

spawnd makes it, keeps it from one acceptor to the next, and reads it at any time: `docs/design/accept.md`.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Iterator, Mapping
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_ntop
from typing import NamedTuple

MOST_SESSIONS = 16384
RULES = (
    *("", "no_access", "only_from", "hours", "trap", "denied", "per_source", "source_rate"),
    *("max", "rate", "load_max", "memory_min"),
)
TICKS = 100  # a second, in /proc/PID/stat

_TABLE_MAGIC, _TABLE_VERSION = 0x4C425441, 1
_PEER = struct.Struct("=2H2Ii16s")
_SESSION = struct.Struct(f"=IiQ3q{_PEER.size}s2I")
_REFUSAL = struct.Struct(f"=2Iq{_PEER.size}s")
_TROUBLE = struct.Struct("=IiQqQ")
_FIRST = struct.Struct("=4I2Q")
_COUNTERS = struct.Struct(f"=5Q{len(RULES)}QQ2q")
_HEADER = struct.Struct(f"={_FIRST.size}s{_COUNTERS.size}s{_REFUSAL.size}s{_TROUBLE.size}sQ")
_GENERATION = 16
_KEY = 16
_TIMED = struct.Struct(f"={_KEY}sq")
_PAGE, _REPORT, _ADDRESSES, _TIMED_KEY = 4096, 1 << 15, 4096, _TIMED.size
_SLOTS = _PAGE + _REPORT + _ADDRESSES * _TIMED_KEY
TABLE_SIZE = _SLOTS + MOST_SESSIONS * _SESSION.size
_DENIED_MAGIC = 0x324E4544
_DENIED = struct.Struct("=2IQ16s")
DENIED_SIZE = _DENIED.size + _ADDRESSES * _TIMED_KEY
_TRIES = 100
_FOREVER = 5e8  # seconds; an address that is denied until the host boots has a billion at first


class Peer(NamedTuple):
    """A client. `address` is empty for Unix sockets, `uid` and `pid` are 0 for others."""

    address: str
    port: int
    uid: int
    pid: int

    def __str__(self) -> str:
        """Return the client in one word: `192.0.2.1:4000`, `[2001:db8::1]:4000`, `uid=1000,pid=812`, `unknown`."""
        if not self.address:
            return f"uid={self.uid},pid={self.pid}" if self.uid or self.pid else "unknown"
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Session(NamedTuple):
    """A session: its process has started between the ticks `earliest` and `latest`, `since` is of the epoch."""

    pid: int
    earliest: int
    latest: int
    since: float
    peer: Peer

    def is_process(self, started: int) -> bool:
        """Return whether a process with its pid that has started at this tick is the session."""
        return self.earliest <= started <= self.latest


class Refusal(NamedTuple):
    """The last refusal: its rule and time, and the client."""

    rule: str
    time: float
    peer: Peer


class Trouble(NamedTuple):
    """The last failure of a step: errno, failures so far, time, and the report for `read_failure`."""

    number: int
    failures: int
    time: float
    report: bytes


class Counters(NamedTuple):
    """Counters of a service; `refused` is by rule. `limit` is the rule for all clients that lets none in, '' for none.

    It is outdated where there is no acceptor.
    """

    accepted: int
    started: int
    ended: int
    sessions: int
    held: int
    refused: dict[str, int]
    lost_lines: int
    last_start: float
    refusal: Refusal | None
    trouble: Trouble | None
    limit: str


def make_table(found: Mapping[int, tuple[int, int]] | None = None) -> int:
    """Return the memfd of a new table, which the caller owns. Raises OSError.

    It has the sessions that were `found` again, by pid with the start time and the number of the cgroup, or 0; their
    clients are unknown.
    """
    sessions = list((found or {}).items())[:MOST_SESSIONS]
    count = len(sessions)
    first = _FIRST.pack(_TABLE_MAGIC, _TABLE_VERSION, MOST_SESSIONS, count, 0, _seed())
    fd = _make("sessions", TABLE_SIZE, first + _COUNTERS.pack(count, count, 0, count, *[0] * (len(RULES) + 4)))
    try:
        os.pwrite(fd, b"".join(_found(number, pid, *facts) for number, (pid, facts) in enumerate(sessions, 1)), _SLOTS)
    except OSError:
        os.close(fd)
        raise
    return fd


def _found(number: int, pid: int, started: int, cgroup: int) -> bytes:
    """Return the slot of a session of an unknown client. The process has started within this tick."""
    tick = 10**9 // TICKS
    begin = started * tick
    since = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + begin
    return _SESSION.pack(0, pid, number, begin, begin + tick - 1, since, bytes(_PEER.size), 1, cgroup)


def open_denied(path: str, writes: bool) -> int:
    """Open the file with the table of denied addresses, which is made if it is missing or of another boot.

    It outlives spawnd; a trap alone `writes` to it. The caller owns the descriptor. Raises OSError.
    """
    boot = _boot_id()
    if not _is_of_boot(path, boot):
        _make_denied(path, boot)
    return os.open(path, (os.O_RDWR if writes else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)


def read_denied(path: str) -> dict[str, float]:
    """Return the addresses in that file, with the seconds that each is still denied. Raises OSError.

    An IPv6 address is denied as its network. An address that is denied until the host boots has `math.inf`.
    """
    found = {_network(key): until / 1e9 - time.monotonic() for _at, key, until in _denials(path)}
    return {address: math.inf if left > _FOREVER else left for address, left in found.items() if left > 0}


def forgive(path: str, address: str) -> bool:
    """Deny an address no longer, or one of an IPv6 network; return whether it was denied. Raises OSError.

    A trap that writes to the same place at the same time may lose what it has written.
    """
    now = time.monotonic_ns()
    wanted = [at for at, key, until in _denials(path) if until > now and _network(key) == address]
    for at in wanted:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(fd, bytes(8), at + _KEY)
        finally:
            os.close(fd)
    return bool(wanted)


def denied_network(text: str) -> str:
    """Return an address as `read_denied` has it. Raises ValueError if it is none."""
    network = ip_network(text, strict=False)
    address = network.network_address
    if isinstance(address, IPv4Address) or (mapped := address.ipv4_mapped) is None:
        bits = 32 if address.version == 4 else 64
        if network.prefixlen not in (bits, network.max_prefixlen):
            raise ValueError(f"{text!r} is neither an address nor a /64 of IPv6")
        return _network_of(address)
    return str(mapped)


def _network_of(address: IPv4Address | IPv6Address) -> str:
    return str(address) if address.version == 4 else str(IPv6Network((address, 64), strict=False))


def _network(key: bytes) -> str:
    address = IPv6Address(key)
    return _network_of(address.ipv4_mapped or address)


def _denials(path: str) -> Iterator[tuple[int, bytes, int]]:
    """Return the places of the file that have been used: where they begin, the address, the time."""
    if not _is_of_boot(path, _boot_id()):
        return
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = os.pread(fd, DENIED_SIZE, 0)
    finally:
        os.close(fd)
    for at in range(_DENIED.size, len(data), _TIMED_KEY):
        key, until = _TIMED.unpack_from(data, at)
        if until:
            yield at, key, until


def _boot_id() -> bytes:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return bytes.fromhex(file.read().strip().replace("-", ""))


def _is_of_boot(path: str, boot: bytes) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(fd).st_size != DENIED_SIZE:
            return False
        magic, _is_used, _seed, of_boot = _DENIED.unpack(os.pread(fd, _DENIED.size, 0))
        return bool(magic == _DENIED_MAGIC and of_boot == boot)
    finally:
        os.close(fd)


def _make_denied(path: str, boot: bytes) -> None:
    """Make the file anew, with its final name once it is complete. Acceptors keep the one that they have mapped."""
    new = f"{path}~"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)  # users could open it otherwise, by the descriptor of an acceptor
        os.posix_fallocate(fd, 0, DENIED_SIZE)  # a mapped hole would end who uses it, on a full disk
        os.pwrite(fd, _DENIED.pack(_DENIED_MAGIC, 0, _seed(), boot), 0)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {new!r}: {error.strerror}") from error
    finally:
        os.close(fd)
    os.rename(new, path)


def _seed() -> int:
    return int.from_bytes(os.urandom(8), "little")


def _make(name: str, size: int, first: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        os.pwrite(fd, first, 0)
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW)
    except OSError:
        os.close(fd)
        raise
    return fd


def end_generation(fd: int) -> None:
    """Let no process that is not yet in the table become a session; for a table whose acceptor has ended."""
    generation = int.from_bytes(os.pread(fd, 8, _GENERATION), "little")
    os.pwrite(fd, (generation + 1).to_bytes(8, "little"), _GENERATION)


def read_counters(fd: int) -> Counters:
    """Read the counters of a table. A part that is being written is read again; it is None if that goes on."""
    for _ in range(_TRIES):
        _first, counters, refusal, trouble, limit = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
        if not (refusal[0] & 1 or trouble[0] & 1):
            break
    accepted, started, ended, sessions, held, *refused, lost_lines, last_start, _rate = _COUNTERS.unpack(counters)
    return Counters(
        *(accepted, started, ended, sessions, held),
        dict(zip(RULES[1:], refused[1:], strict=True)),
        *(lost_lines, last_start / 1e9, _refusal(refusal), _trouble(fd, trouble)),
        RULES[limit],
    )


def _refusal(data: bytes) -> Refusal | None:
    changes, rule, time, peer = _REFUSAL.unpack(data)
    return None if changes & 1 or not rule else Refusal(RULES[rule], time / 1e9, _peer(peer))


def _trouble(fd: int, data: bytes) -> Trouble | None:
    changes, number, count, time, size = _TROUBLE.unpack(data)
    if changes & 1 or not count:
        return None
    return Trouble(number, count, time / 1e9, os.pread(fd, min(size, _REPORT), _PAGE))


def _peer(data: bytes) -> Peer:
    family, port, uid, _gid, pid, address = _PEER.unpack(data)
    match family:
        case 4:
            return Peer(inet_ntop(AF_INET, address[12:]), port, 0, 0)
        case 6:
            return Peer(inet_ntop(AF_INET6, address), port, 0, 0)
    return Peer("", 0, uid, pid)


def read_sessions(fd: int) -> Iterator[Session]:
    """Read the sessions of a table. The processes of some may have ended, and their pids may be taken anew."""
    used = min(_FIRST.unpack(os.pread(fd, _FIRST.size, 0))[3], MOST_SESSIONS)
    data = os.pread(fd, used * _SESSION.size, _SLOTS)
    for at in range(0, len(data) - _SESSION.size + 1, _SESSION.size):
        slot = data[at : at + _SESSION.size]
        for _ in range(_TRIES):
            if not slot[0] & 1:
                break
            slot = os.pread(fd, _SESSION.size, _SLOTS + at)
        _changes, pid, _number, begin, end, since, peer, *_ = _SESSION.unpack(slot)
        if pid > 0 and not slot[0] & 1:
            tick = 10**9 // TICKS
            yield Session(pid, begin // tick, end // tick, since / 1e9, _peer(peer))
