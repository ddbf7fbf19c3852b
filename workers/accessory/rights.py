"""What a client may do, once it is known who it is."""

from __future__ import annotations

import pwd
from dataclasses import dataclass

from workers.accessory.errors import Refused
from workers.accessory.id_map import (
    SUBORDINATE_GIDS,
    SUBORDINATE_UIDS,
    Extent,
    Ids,
    is_within,
    parse_map,
    subordinate_ids,
)
from workers.accessory.protocol import split_maps

SHARED = -1  # the realm of those who may map any ids


@dataclass(frozen=True, slots=True)
class Maps:
    """What is written for a user namespace: each map where it is not empty."""

    uid_map: bytes
    gid_map: bytes
    deny_setgroups: bool = False


@dataclass(frozen=True, slots=True)
class Rights:
    """Of a client with these effective ids.

    `realm` is the set of names that it sees: SHARED, or its uid.  `own` says whether it may map
    its own ids and the subordinate ones, `ids` what it may map besides; neither counts in SHARED.
    """

    uid: int
    gid: int
    realm: int
    own: bool = False
    ids: tuple[Ids, ...] = ()

    def maps(self, payload: bytes) -> Maps:
        """The maps that a USER_NAMESPACE asks for.  Raises Refused where it may not have them."""
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
        # who could leave a group that denies something would gain by it: user_namespaces(7)
        deny = not all(is_within(extent, gids) for extent in gid_extents)
        return Maps(_encode(uid_extents), _encode(gid_extents), deny)


def _allowed(text: bytes, what: str, allowed: list[Ids]) -> list[Extent]:
    extents = parse_map(text, what) if text else []
    for extent in extents:
        if not is_within(extent, allowed):
            last = extent.outside + extent.count - 1
            raise Refused(f"{what}: you may not map the ids {extent.outside} to {last}")
    return extents


def _encode(extents: list[Extent]) -> bytes:
    return b"".join(extent.encode() for extent in extents)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
