"""Going on with the names of a process before this one: from its log, spawnd's store and the inits that live.

What the log does not know was never told to anybody.  A name may come back with less than the log
says, and then that was not stored before it was told, or has ended: the next request makes it anew.
To find an init takes as long as all else about its name, so that is left for later.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWUSER, ns_get_nstype
from workers.accessory.entry import Entry, UserNamespace
from workers.accessory.program import Init
from workers.accessory.records import Known, read_stored_name


def recover(
    known: Mapping[int, Known], stored: Mapping[str, Sequence[int]], now: float
) -> tuple[list[Entry], list[str]]:
    """The entries, which own those of the stored descriptors that are of use; the others stay where they are.

    `stored` is by name in the store; names there that no entry has are the second result.
    """
    entries = []
    unknown = []
    times: dict[int, float] = {}  # each once: many names share one
    for facts in known.values():
        until = times.setdefault(facts.until, facts.until / 1000)
        entry = Entry(facts.id, facts.realm, facts.payer, facts.name, min(until, now), until)
        entry.init = None if facts.init is None else Init(*facts.init)
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
            entry.touched = entry.noted_until = now  # its last lease has ended since
    return entries, unknown


def _give(entry: Entry, known: Known, fd: int) -> None:
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
        entry.users += (UserNamespace(fd, facts.st_ino, *known.users[facts.st_ino]),)
