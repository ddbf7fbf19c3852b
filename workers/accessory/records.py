"""The lines of the log of names, and what they say together.

    N ID REALM PAYER UNTIL NAME     a name has come to be
    U ID INODE UID PAYLOAD          it has a user namespace; the payload is in hexadecimal digits
    P ID PID STARTED                it has a PID namespace with this init
    E ID                            and has it no more
    L ID                            it is leased
    T ID UNTIL                      it is not leased
    X ID                            it is gone

UNTIL is as late as it may have been used, in milliseconds of CLOCK_BOOTTIME.  The descriptors of
ID are in the store, under `stored_name(ID)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_STORED_NAME = re.compile(r"n[0-9a-z]{1,12}")


@dataclass(slots=True)
class Known:
    """What is known of a name.  `users` are uid and payload by the inode of the namespace."""

    id: int
    realm: int
    payer: int
    until: int
    name: str
    users: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    init: tuple[int, int] | None = None
    leased: bool = False


def name_line(known: Known) -> bytes:
    return b"N %d %d %d %d %s\n" % (known.id, known.realm, known.payer, known.until, known.name.encode())


def user_line(id: int, inode: int, uid: int, payload: bytes) -> bytes:
    return b"U %d %d %d %s\n" % (id, inode, uid, payload.hex().encode())


def init_line(id: int, pid: int, started: int) -> bytes:
    return b"P %d %d %d\n" % (id, pid, started)


def init_gone_line(id: int) -> bytes:
    return b"E %d\n" % id


def leased_line(id: int) -> bytes:
    return b"L %d\n" % id


def touched_line(id: int, until: int) -> bytes:
    return b"T %d %d\n" % (id, until)


def gone_line(id: int) -> bytes:
    return b"X %d\n" % id


def read_lines(lines: Iterable[bytes]) -> tuple[dict[int, Known], int]:
    """What is known of each name that there is, by id, and how many lines could not be read."""
    known: dict[int, Known] = {}
    damaged = 0
    for line in lines:
        try:
            _take(known, line)
        except (ValueError, KeyError, IndexError):
            damaged += 1
    return known, damaged


def _take(known: dict[int, Known], line: bytes) -> None:
    kind, number, *rest = line.split(b" ", 2)
    id = int(number)
    if kind == b"N":
        realm, payer, until, name = rest[0].split(b" ", 3)
        new = Known(id, int(realm), int(payer), int(until), name.decode("ascii"))
        # one that is known is at the beginning of a log written anew, whose end was never written: all of it is known;
        # not so if it is another's, as the id of what was undone is given again
        if id not in known or (known[id].realm, known[id].name) != (new.realm, new.name):
            known[id] = new
        return
    if kind == b"X":
        known.pop(id, None)
        return
    _change(known[id], kind, rest[0].split(b" ") if rest else [])


def _change(entry: Known, kind: bytes, values: list[bytes]) -> None:
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


def stored_name(id: int) -> str:
    """The name in the store for what belongs to a name: short, as those of all must fit into one string."""
    digits = ""
    while id or not digits:
        id, digit = divmod(id, 36)
        digits = _DIGITS[digit] + digits
    return f"n{digits}"


def read_stored_name(text: str) -> int | None:
    """The id in a name of the store; None where it is no such name."""
    return int(text[1:], 36) if _STORED_NAME.fullmatch(text) else None
