"""A unit made again from what was written down of it.

Where its descriptors come from differs: a spawnd that executed itself anew has them still,
one that takes over after a loss has to get them back.  That is the business of a `Source`.
Here nothing is started, stopped or signalled.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from supervisor.definitions.report import SharedValues
from supervisor.definitions.service import Service
from supervisor.lifecycle.ended import Ended
from supervisor.log.logger import log
from supervisor.manager.launcher import Host
from supervisor.manager.pending import Pending
from supervisor.manager.unit import Unit
from supervisor.process.cgroup import Leaf
from supervisor.process.descriptors import Opened
from supervisor.process.run import Run
from supervisor.process.table import wanted
from supervisor.state.file import Record
from supervisor.state.life import read_life

STORE_MAX = 1 << 20  # what was stored once had room


class Source(Protocol):
    """Where processes and descriptors of one unit come from."""

    def run(self) -> Run | None:
        """Its process; None where there is none any more."""

    def descriptor(self, kept: Sequence[Any], slot: str = "") -> int | None:
        """A descriptor that was kept, the caller's from now on; None where it is lost.

        `kept` is its number in the spawnd that wrote it down and its identity, `slot` where it
        is in the table of its service.
        """

    def streams(self, kept: Sequence[Sequence[Any]]) -> list[int]:
        """The descriptors of its output, all of them or none."""


def restore(unit: Unit, record: Record, source: Source, host: Host, shared: SharedValues) -> None:
    """Give a new unit all that its record says.  Raises what a record of another version may lead to."""
    unit.life = read_life(record["life"])
    unit.last_exit = record.get("last_exit", "")
    unit.ended = Ended(**record["ended"]) if "ended" in record else None
    unit.status_text = record.get("status_text", "")
    unit.removed = record.get("removed", False)
    unit.ended_clean = record.get("ended_clean")
    unit.oom_kills = record.get("oom_kills", 0)
    unit.sessions = set(record.get("sessions", ()))
    unit.others = {pid: started for pid, started in record.get("others", ())}
    if "cgroup" in record and host.subtree is not None:
        unit.cgroup = Leaf(host.subtree, record["cgroup"])
    unit.run = source.run()
    unit.table.adopt(unit.service, restore_table(unit.service, record.get("table", {}), source))
    for name, polled, *kept in record.get("store", ()):
        fd = source.descriptor(kept)
        if fd is not None:
            unit.store.add(name, [fd], polled, STORE_MAX, names_max=sys.maxsize)
        else:
            log.warning("%s: stored descriptor %r (%s) is lost", unit.name, name, kept[1])
    streams = source.streams(record.get("streams", ()))
    if streams:
        host.outputs.give(unit.name, streams)
    if "next" in record:
        service = shared.service(record["next"]["service"])
        unit.pending = Pending(service, restore_table(service, record["next"]["table"], source))


def restore_table(service: Service, record: Mapping[str, Sequence[Any]], source: Source) -> dict[str, Opened]:
    """The descriptors of a table by slot, those that are lost left out."""
    opened: dict[str, Opened] = {}
    for slot, spec in wanted(service).items():
        if slot in record:
            *kept, inode = record[slot]
            fd = source.descriptor(kept, slot)
            if fd is not None:
                opened[slot] = Opened(spec, fd, tuple(inode) if inode is not None else None)
    return opened
