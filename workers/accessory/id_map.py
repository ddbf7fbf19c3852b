"""User and group id maps, user_namespaces(7), and ranges of ids that a client may map.

    INSIDE OUTSIDE COUNT
    …
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from workers.accessory.protocol import Refused

LARGEST = 2**32 - 2  # the next id, the highest of all, means "none"
MOST_BYTES = 4095  # of a map, and lines: limits of the kernel
MOST_LINES = 340
SUBORDINATE_UIDS = "/etc/subuid"
SUBORDINATE_GIDS = "/etc/subgid"
_LINE = re.compile(r"[ \t]*([0-9]{1,10})[ \t]+([0-9]{1,10})[ \t]+([0-9]{1,10})[ \t]*")


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids `first` to `last`, both included."""

    first: int
    last: int


class Extent(NamedTuple):
    """`count` ids from `outside` up, known as `inside` and up in the namespace."""

    inside: int
    outside: int
    count: int  # type: ignore[assignment]  # the method of tuples is not used

    def encode(self) -> bytes:
        return b"%d %d %d\n" % self


def parse_map(text: bytes, what: str) -> list[Extent]:
    """Parse the extents of a map, more strictly than the kernel. Raises Refused."""
    lines = text.decode("latin-1").removesuffix("\n").split("\n") if len(text) <= MOST_BYTES else []
    if not 0 < len(lines) <= MOST_LINES:
        raise Refused(f"{what} is too long: it may have {MOST_BYTES} bytes and {MOST_LINES} lines")
    extents = []
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            raise Refused(f"malformed {what}: {line[:80]!r} is not three numbers")
        extent = Extent(*map(int, found.groups()))
        inside, outside, count = extent
        if count == 0 or (inside if inside > outside else outside) + count - 1 > LARGEST:
            raise Refused(f"malformed {what}: {line[:80]!r} is out of range")
        extents.append(extent)
    return extents


def encode_map(extents: Iterable[Extent]) -> bytes:
    """Return a map in its plain form, which is stored and compared."""
    return b"".join(extent.encode() for extent in extents)


def is_within(extent: Extent, allowed: Iterable[Ids]) -> bool:
    """Whether all of its outside ids are allowed; adjacent ranges count as one."""
    first, last = extent.outside, extent.outside + extent.count - 1
    for ids in sorted(allowed, key=lambda ids: ids.first):
        if ids.first <= first <= ids.last:
            first = ids.last + 1
    return first > last


def subordinate_ids(path: str, uid: int, name: str) -> list[Ids]:
    """Return the ranges that subuid(5) or subgid(5) gives to a user; none if there is no such file."""
    found = []
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            owner, _, rest = line.strip().partition(":")
            first, _, count = rest.partition(":")
            if owner in (name, str(uid)) and owner and first.isdecimal() and count.isdecimal() and int(count) > 0:
                found.append(Ids(int(first), int(first) + int(count) - 1))
    return found


def parse_ids(text: str) -> Ids:
    """Parse a range of the options, `100000-165535` or a single id. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", text)
    if found is None:
        raise ValueError(f"{text!r} is not a range of ids, as '100000-165535'")
    ids = Ids(int(found[1]), int(found[2] or found[1]))
    if not ids.first <= ids.last <= LARGEST:
        raise ValueError(f"{text!r} is not a range of ids")
    return ids
