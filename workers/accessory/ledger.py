"""Records of all names that survive this process: a log in a memfd, and the descriptors, both in spawnd's store.

A client is told of new namespaces once they are recorded with `made`. Records whose loss would only let a
name live a little longer are written as they come, and a failure is only logged.

The memfd has a header, a magic and a u64 with the offset at which the log begins, and then lines. A log that
has grown is written anew behind its own end, then the u64 is changed, then the space before is freed. So one
of the two is complete whenever this process is killed. A last line without its end counts as not written.

    N ID REALM PAYER UNTIL NAME     there is a new name
    U ID INODE UID PAYLOAD          it has a user namespace; the payload is hexadecimal
    P ID PID STARTED                it has a PID namespace with this init
    E ID                            it has no PID namespace any more
    L ID                            it is leased
    T ID UNTIL                      it is not leased
    X ID                            it is gone

UNTIL is the latest time at which it may have been used, in milliseconds of CLOCK_BOOTTIME. The store has the
descriptors of ID under `stored_name(ID)`.

Clients were told only of names and namespaces that are in the log. A successor restores them from the log, spawnd's
store and the inits that live. A name may come back with less than the log says: the rest was not stored before the
client was told, or has ended, and the next request makes it anew. Finding an init takes as long as everything else
about its name, so that is done later.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from supervisor.linux.descriptors import punch_hole
from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWUSER, ns_get_nstype
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from workers.accessory.c_helpers import Init
from workers.accessory.entry import Accounts, Entry, UserNamespace
from workers.accessory.new_namespaces import NewNamespaces
from workers.accessory.protocol import Refused
from workers.accessory.rights import plain_maps
from workers.runtime.store import Holdings, StoreClient

JOURNAL = "journal"  # the name of the log in the store
ROOM = 1 << 18  # bytes by which the log may grow in any case
FACTOR = 4  # times the length after a rewrite up to which the log may grow
PIECE = 256  # lines in memory at a time: the memory for thousands would never be returned
_HEADER = struct.Struct("=8sQ")
_MAGIC = b"names 1\n"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

Realms = Mapping[int, Mapping[str, Entry]]

_STORED_NAME = re.compile(r"n[0-9a-z]{1,12}")


class Ledger:
    """Owns the log. `realms` has all entries by realm and name, which the registry changes after `made`."""

    def __init__(self, journal: Journal, realms: Realms, loop: Loop, notify_socket: str) -> None:
        self._journal = journal
        self._realms = realms
        self.store = StoreClient(loop, notify_socket, self._everything)

    def keep_journal(self) -> None:
        """Put the log itself into the store."""
        self.store.keep(JOURNAL, [self._journal.fd], self._journal_holdings, polled=False)

    def made(self, entry: Entry, new: NewNamespaces, is_new: bool) -> None:
        """Record new namespaces that the entry does not have yet. Raises Refused, and then nothing is written."""
        lines = _name_line(entry) if is_new else b""
        if new.user is not None:
            lines += user_line(entry.id, new.user.inode, new.user.uid, new.user.payload)
        if new.init is not None:
            lines += init_line(entry.id, new.init.pid, new.init.started)
        if new.lease >= 0 and not entry.is_leased:
            lines += leased_line(entry.id)
        try:
            self._journal.append(lines)
        except OSError as error:
            raise Refused(f"cannot write it down: {error.strerror}") from error
        # a namespace cannot hang up, so `polled` matters only for the lease
        fds = new.stored()
        if fds:
            self.store.keep(stored_name(entry.id), fds, entry.holdings, polled=new.lease >= 0)

    def touched(self, entry: Entry) -> None:
        self._append(touched_line(entry.id, round(entry.noted_until * 1000)))

    def init_gone(self, entry: Entry) -> None:
        self._append(b"E %d\n" % entry.id)

    def gone(self, entry: Entry) -> None:
        self._append(b"X %d\n" % entry.id)
        self.store.drop(stored_name(entry.id))

    def write_anew(self) -> None:
        """Rewrite the log with nothing but the present state."""
        try:
            self._journal.replace(line for entry in self._entries() for line in _lines(entry))
        except OSError as error:
            log.warning("cannot write the log of names anew: %s", error.strerror)

    def _append(self, line: bytes) -> None:
        try:
            self._journal.append(line)
        except OSError as error:
            log.warning("cannot write to the log of names: %s", error.strerror)
        if self._journal.is_long:
            self.write_anew()

    def _entries(self) -> Iterator[Entry]:
        return (entry for names in self._realms.values() for entry in names.values())

    def _everything(self) -> Iterator[tuple[str, Callable[[], Holdings]]]:
        yield JOURNAL, self._journal_holdings
        yield from ((stored_name(entry.id), entry.holdings) for entry in self._entries())

    def _journal_holdings(self) -> Holdings:
        return [([self._journal.fd], False)]


def stored_name(id: int) -> str:
    """Return the name in the store for the descriptors of a name: short, as all must fit into one string."""
    digits = ""
    while id or not digits:
        id, digit = divmod(id, 36)
        digits = _DIGITS[digit] + digits
    return f"n{digits}"


def name_line(id: int, realm: int, payer: int, until: int, name: str) -> bytes:
    return b"N %d %d %d %d %s\n" % (id, realm, payer, until, name.encode())


def user_line(id: int, inode: int, uid: int, payload: bytes) -> bytes:
    return b"U %d %d %d %s\n" % (id, inode, uid, payload.hex().encode())


def init_line(id: int, pid: int, started: int) -> bytes:
    return b"P %d %d %d\n" % (id, pid, started)


def leased_line(id: int) -> bytes:
    return b"L %d\n" % id


def touched_line(id: int, until: int) -> bytes:
    return b"T %d %d\n" % (id, until)


def _name_line(entry: Entry) -> bytes:
    return name_line(entry.id, entry.realm, entry.account.uid, round(entry.noted_until * 1000), entry.name)


def _lines(entry: Entry) -> Iterator[bytes]:
    """Yield all lines about an entry."""
    yield _name_line(entry)
    for user in entry.users:
        yield user_line(entry.id, user.inode, user.uid, user.payload)
    if entry.init is not None:
        yield init_line(entry.id, entry.init.pid, entry.init.started)
    if entry.is_leased:
        yield leased_line(entry.id)


class Journal:
    """The log of the ledger. Owns the memfd `fd`."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self.fd = fd
        self._start = start
        self._end = end
        self._limit = end

    @classmethod
    def create(cls) -> Journal:
        """Make an empty log. Raises OSError."""
        fd = os.memfd_create("names", os.MFD_CLOEXEC)
        try:
            os.pwrite(fd, _HEADER.pack(_MAGIC, _HEADER.size), 0)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, _HEADER.size, _HEADER.size)

    @classmethod
    def resume(cls, fd: int) -> tuple[Journal, Iterator[bytes]]:
        """Take over `fd`, the log of an earlier process, and return its lines. Raises ValueError."""
        header = os.pread(fd, _HEADER.size, 0)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise ValueError("it is not a log of names")
        _magic, start = _HEADER.unpack(header)
        data = _read_from(fd, start)
        whole = data.rfind(b"\n") + 1
        os.ftruncate(fd, start + whole)
        return cls(fd, start, start + whole), (line[:-1] for line in io.BytesIO(data[:whole]))

    def append(self, lines: bytes) -> None:
        """Write complete lines. Raises OSError, and then nothing was written."""
        self._append([lines])

    @property
    def is_long(self) -> bool:
        """Whether it is time for `replace`."""
        return self._end > self._limit

    def replace(self, lines: Iterable[bytes]) -> None:
        """Replace all lines. Raises OSError, and then the log is as before."""
        start = self._end
        self._append(_pieces(lines))
        os.pwrite(self.fd, _HEADER.pack(_MAGIC, start), 0)
        self._start = start
        size = self._end - start
        self._limit = start + max(FACTOR * size, size + ROOM)
        if start > _HEADER.size:
            punch_hole(self.fd, _HEADER.size, start - _HEADER.size)

    def close(self) -> None:
        os.close(self.fd)

    def _append(self, pieces: Iterable[bytes]) -> None:
        at = self._end
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    written = os.pwrite(self.fd, rest, at)
                    rest, at = rest[written:], at + written
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.fd, self._end)
            raise
        self._end = at


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    left = iter(lines)
    while some := list(islice(left, PIECE)):
        yield b"".join(some)


def _read_from(fd: int, start: int) -> bytes:
    pieces = []
    while piece := os.pread(fd, 1 << 20, start):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)


@dataclass(slots=True)
class LoggedName:
    """A name as in the log. `users` has uid and payload by the inode of the namespace."""

    id: int
    realm: int
    payer: int
    until: int
    name: str
    users: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    init: tuple[int, int] | None = None
    leased: bool = False


def read_lines(lines: Iterable[bytes]) -> tuple[dict[int, LoggedName], int]:
    """Return the names of the log by id, and the number of unreadable lines."""
    known: dict[int, LoggedName] = {}
    damaged = 0
    for line in lines:
        try:
            _take(known, line)
        except (ValueError, KeyError, IndexError):
            damaged += 1
    return known, damaged


def _take(known: dict[int, LoggedName], line: bytes) -> None:
    kind, number, *rest = line.split(b" ", 2)
    id = int(number)
    if kind == b"N":
        realm, payer, until, name = rest[0].split(b" ", 3)
        new = LoggedName(id, int(realm), int(payer), int(until), name.decode("ascii"))
        # A known name begins a rewrite of the log that was never finished: all of it is known. A known id
        # with another name was reused after its request was undone.
        if id not in known or (known[id].realm, known[id].name) != (new.realm, new.name):
            known[id] = new
        return
    if kind == b"X":
        known.pop(id, None)
        return
    _change(known[id], kind, rest[0].split(b" ") if rest else [])


def _change(entry: LoggedName, kind: bytes, values: list[bytes]) -> None:
    match kind:
        case b"U":
            entry.users[int(values[0])] = (int(values[1]), bytes.fromhex(values[2].decode("ascii")))
        case b"P":
            entry.init = (int(values[0]), int(values[1]))
        case b"E":
            entry.init = None
        case b"L":
            entry.leased = True
        case b"T":
            entry.leased, entry.until = False, int(values[0])
        case _:
            raise ValueError(f"no such kind of line: {kind!r}")


def read_stored_name(text: str) -> int | None:
    """Return the id in a name of the store; None for any other name."""
    return int(text[1:], 36) if _STORED_NAME.fullmatch(text) else None


def recover(
    known: Mapping[int, LoggedName], stored: Mapping[str, Sequence[int]], accounts: Accounts, now: float
) -> tuple[list[Entry], list[str]]:
    """Return the entries, which own the useful ones of the stored descriptors, and names without an entry.

    `stored` has the descriptors by name in the store; useless ones stay in it.
    """
    entries = []
    unknown = []
    times: dict[int, float] = {}  # one object per time: many names have the same
    for logged in known.values():
        until = times.setdefault(logged.until, logged.until / 1000)
        account = accounts.of(logged.payer)
        entry = Entry(logged.id, logged.realm, account, logged.name, min(until, now), until)
        account.charge("names", entry.weight, 0)
        entry.init = None if logged.init is None else Init(*logged.init)
        entries.append(entry)
    by_id = {entry.id: entry for entry in entries}
    for name, fds in stored.items():
        found = by_id.get(read_stored_name(name) or 0)
        if found is None:
            unknown.append(name)
            continue
        for fd in fds:
            _give(found, known[found.id], fd)
    for entry in entries:
        if known[entry.id].leased and not entry.is_leased:
            entry.touched = entry.noted_until = now  # its last lease has ended meanwhile
    return entries, unknown


def _give(entry: Entry, known: LoggedName, fd: int) -> None:
    facts = os.fstat(fd)
    if stat.S_ISFIFO(facts.st_mode):
        entry.add_lease(fd)
        return
    try:
        kind = ns_get_nstype(fd)
    except OSError:
        return
    if kind == CLONE_NEWIPC and entry.ipc < 0:
        entry.ipc = fd
    elif kind == CLONE_NEWUSER and facts.st_ino in known.users:
        uid, payload = known.users[facts.st_ino]
        with suppress(Refused):  # an earlier version kept payloads as they were sent
            payload = plain_maps(payload)
        entry.users += (UserNamespace(fd, facts.st_ino, uid, payload),)
