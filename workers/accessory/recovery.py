"""Restoring the names of an earlier process: from its log, spawnd's store and the inits that live.

Clients were told only of names and namespaces that are in the log. A name may come back with less than the
log says: the rest was not stored before the client was told, or has ended, and the next request makes it
anew. Finding an init takes as long as everything else about its name, so that is done later.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWUSER, ns_get_nstype
from workers.accessory.c_helpers import Init
from workers.accessory.entry import Accounts, Entry, UserNamespace
from workers.accessory.protocol import Refused
from workers.accessory.rights import plain_maps

_STORED_NAME = re.compile(r"n[0-9a-z]{1,12}")


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
