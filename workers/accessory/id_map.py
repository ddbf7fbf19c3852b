"""User and group id maps, user_namespaces(7), and what somebody may map.

    INSIDE OUTSIDE COUNT
    …
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from workers.accessory.errors import Refused

LARGEST = 2**32 - 2  # the last id means "none"
SUBORDINATE_UIDS = "/etc/subuid"
SUBORDINATE_GIDS = "/etc/subgid"
_LINE = re.compile(r"[ \t]*([0-9]{1,10})[ \t]+([0-9]{1,10})[ \t]+([0-9]{1,10})[ \t]*")


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids `first` to `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Extent:
    """`count` ids from `outside` up that are known as `inside` and so on in the namespace."""

    inside: int
    outside: int
    count: int

    def encode(self) -> bytes:
        return b"%d %d %d\n" % (self.inside, self.outside, self.count)


def parse_map(text: bytes, what: str) -> list[Extent]:
    """The extents of a map, stricter than the kernel reads it.  Raises Refused."""
    extents = []
    for line in text.decode("latin-1").removesuffix("\n").split("\n"):
        found = _LINE.fullmatch(line)
        if found is None:
            raise Refused(f"malformed {what}: {line[:80]!r} is not three numbers")
        extent = Extent(*map(int, found.groups()))
        if extent.count == 0 or extent.outside + extent.count - 1 > LARGEST:
            raise Refused(f"malformed {what}: {line[:80]!r} is out of range")
        extents.append(extent)
    return extents


def is_within(extent: Extent, allowed: Iterable[Ids]) -> bool:
    """Whether all of its outside ids are among the allowed ones; ranges that touch count as one."""
    first, last = extent.outside, extent.outside + extent.count - 1
    for ids in sorted(allowed, key=lambda ids: ids.first):
        if ids.first <= first <= ids.last:
            first = ids.last + 1
    return first > last


def subordinate_ids(path: str, uid: int, name: str) -> list[Ids]:
    """The ranges that subuid(5) or subgid(5) gives to a user; none where there is no such file."""
    found = []
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            owner, _, rest = line.strip().partition(":")
            first, _, count = rest.partition(":")
            if owner in (name, str(uid)) and owner and first.isdecimal() and count.isdecimal() and int(count) > 0:
                found.append(Ids(int(first), int(first) + int(count) - 1))
    return found


def parse_ids(text: str) -> Ids:
    """A range as options have it, `100000-165535` or a single id.  Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", text)
    if found is None:
        raise ValueError(f"{text!r} is not a range of ids, as '100000-165535'")
    ids = Ids(int(found[1]), int(found[2] or found[1]))
    if not ids.first <= ids.last <= LARGEST:
        raise ValueError(f"{text!r} is not a range of ids")
    return ids
