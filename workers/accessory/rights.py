"""The rights of a client: the names that it sees and the ids that it may map, by the rules of the options."""

from __future__ import annotations

import pwd
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from supervisor.linux.peers import Credentials
from workers.accessory.id_map import (
    SUBORDINATE_GIDS,
    SUBORDINATE_UIDS,
    Extent,
    Ids,
    encode_map,
    is_within,
    parse_map,
    subordinate_ids,
)
from workers.accessory.options import Allowance, Options
from workers.accessory.protocol import NotAllowed, Refused, split_maps

SHARED = -1  # the realm of clients that may map any ids


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps to write for a user namespace; an empty one is not written."""

    uid_map: bytes
    gid_map: bytes
    deny_setgroups: bool = False


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights of a client with these effective ids.

    `realm` is the set of names that the client sees: SHARED, or its uid. `own`: it may map its own ids and its
    subordinate ones. `ids` are further ids that it may map. Neither matters in SHARED, where any id may be mapped.
    """

    uid: int
    gid: int
    realm: int
    own: bool = False
    ids: tuple[Ids, ...] = ()

    def maps(self, payload: bytes) -> Maps:
        """Return the maps for a payload of `plain_maps`. Raises Refused for ids that the client may not map."""
        uid_map, gid_map = split_maps(payload)
        if self.realm == SHARED:
            return Maps(uid_map, gid_map)
        uids, gids = list(self.ids), list(self.ids)
        if self.own:
            name = _user_name(self.uid)
            uids += [Ids(self.uid, self.uid), *subordinate_ids(SUBORDINATE_UIDS, self.uid, name)]
            gids += subordinate_ids(SUBORDINATE_GIDS, self.uid, name)
        own_gid = [Ids(self.gid, self.gid)] if self.own else []
        uid_extents = _allowed(uid_map, "uid_map", uids)
        gid_extents = _allowed(gid_map, "gid_map", [*gids, *own_gid])
        # a process could gain access by leaving a group that a file excludes: user_namespaces(7)
        deny = not all(is_within(extent, gids) for extent in gid_extents)
        return Maps(encode_map(uid_extents), encode_map(gid_extents), deny)


def rights_of(client: Credentials, groups: Callable[[], Iterable[int]], options: Options) -> Rights:
    """Return the most that any rule grants the client.

    `groups` returns its supplementary groups and is called only if a rule needs them. Raises NotAllowed if no
    rule applies, and the OSError of `groups`.
    """
    found = []
    if client.uid in options.users:
        found.append(options.users[client.uid])
    if options.groups and not any(allowance.any for allowance in found):
        found += [options.groups[gid] for gid in {client.gid, *groups()} if gid in options.groups]
    if not found:
        raise NotAllowed(f"user {client.uid} may not use this service")
    return _sum_of(client, found)


def _sum_of(client: Credentials, found: list[Allowance]) -> Rights:
    if any(allowance.any for allowance in found):
        return Rights(client.uid, client.gid, SHARED)
    ids = {ids for allowance in found for ids in allowance.ids}
    own = any(allowance.own for allowance in found)
    return Rights(client.uid, client.gid, client.uid, own, tuple(sorted(ids, key=lambda ids: ids.first)))


@lru_cache(maxsize=16)  # many names have the same maps
def plain_maps(payload: bytes) -> bytes:
    """Return the same maps in their unique plain form, without blanks and leading zeros. Raises Refused."""
    uid_map, gid_map = split_maps(payload)
    return b"\0".join((_plain(uid_map, "uid_map"), _plain(gid_map, "gid_map"))).rstrip(b"\0")


def _plain(text: bytes, what: str) -> bytes:
    try:
        return encode_map(parse_map(text, what)) if text else b""
    except Refused as error:
        raise Refused(f"cannot make user namespace ({what}): {error}") from error


def _allowed(text: bytes, what: str, allowed: list[Ids]) -> list[Extent]:
    extents = parse_map(text, what) if text else []
    for extent in extents:
        if not is_within(extent, allowed):
            last = extent.outside + extent.count - 1
            raise Refused(f"{what}: you may not map the ids {extent.outside} to {last}")
    return extents


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
