"""Who may ask for what: the options' rules applied to a client."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from supervisor.linux.peers import Credentials
from workers.accessory.errors import NotAllowed
from workers.accessory.options import Allowance, Options
from workers.accessory.rights import SHARED, Rights


def rights_of(client: Credentials, groups: Callable[[], Iterable[int]], options: Options) -> Rights:
    """The most that any rule gives the client.  `groups` tells its supplementary ones and is asked where needed.

    Raises NotAllowed where no rule is about it, OSError what `groups` does.
    """
    found = []
    if client.uid in options.users:
        found.append(options.users[client.uid])
    if options.groups and not any(allowance.any for allowance in found):
        found += [options.groups[gid] for gid in {client.gid, *groups()} if gid in options.groups]
    if not found:
        raise NotAllowed(f"user {client.uid} may not use this service")
    return _rights(client, found)


def _rights(client: Credentials, found: list[Allowance]) -> Rights:
    if any(allowance.any for allowance in found):
        return Rights(client.uid, client.gid, SHARED)
    ids = {ids for allowance in found for ids in allowance.ids}
    own = any(allowance.own for allowance in found)
    return Rights(client.uid, client.gid, client.uid, own, tuple(sorted(ids, key=lambda ids: ids.first)))
