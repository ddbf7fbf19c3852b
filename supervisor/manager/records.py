"""A unit written down: all that the next spawnd needs to go on with it, plain data.

A descriptor is `[number here, identity]`, or null where it cannot be told what it is.
"""

from __future__ import annotations

from collections.abc import Iterable

from supervisor.definitions.report import defaults_of, differing, service_record
from supervisor.lifecycle.ended import Ended
from supervisor.linux.open_files import PIPE, SOCKET, identity
from supervisor.manager.unit import Unit
from supervisor.notify.store import Stored
from supervisor.process.descriptors import Opened
from supervisor.process.run import Role
from supervisor.state.file import Record
from supervisor.state.life import life_record

_ENDED = defaults_of(Ended)

Kept = list[object]  # number and identity of a descriptor


def unit_record(unit: Unit, streams: Iterable[int]) -> Record:
    """`streams` are the descriptors that are kept open for its output."""
    record: Record = {"life": life_record(unit.life)}
    if unit.run is not None:
        record |= {"pid": unit.run.pid, "started": unit.run.started, "run": _run_record(unit)}
    if unit.ended is not None:
        record["ended"] = differing(unit.ended, _ENDED)
    texts = {"last_exit": unit.last_exit, "status_text": unit.status_text}
    flags = {"internal": unit.internal, "removed": unit.removed}
    others = {
        "ended_clean": unit.ended_clean,
        "oom_kills": unit.oom_kills or None,
        "sessions": sorted(unit.sessions) or None,
        "others": [[pid, started] for pid, started in unit.others.items()] or None,
        "cgroup": unit.cgroup.path if unit.cgroup is not None else None,
        "receiver": unit.receiver.fileno() if unit.receiver is not None else None,
        "table": table_record(unit.table) or None,
        "streams": [_kept(fd) for fd in streams] or None,
    }
    record |= {key: value for key, value in {**texts, **flags}.items() if value}
    record |= {key: value for key, value in others.items() if value is not None}
    if unit.pending is not None:
        opened = unit.pending.opened.items()
        record["next"] = {"service": service_record(unit.pending.service), "table": table_record(opened)}
    return record


def store_record(unit: Unit, come: Iterable[Stored], gone: Iterable[int] = ()) -> Record:
    """What has come to its store and what has gone: a store may be large, and change often."""
    record: Record = {"name": unit.name}
    stored = [[stored.name, stored.polled, stored.fd, stored.file] for stored in come]
    dropped = list(gone)
    return record | ({"stored": stored} if stored else {}) | ({"dropped": dropped} if dropped else {})


def table_record(entries: Iterable[tuple[str, Opened]]) -> dict[str, list[object]]:
    """By slot: number, identity and, where it came with a socket file, that file's device and inode."""
    return {slot: [*_kept(opened.fd), opened.inode] for slot, opened in entries}


def _run_record(unit: Unit) -> Record:
    run = unit.run
    assert run is not None
    fds = {"error_fd": run.error_fd, "ready_fd": run.ready_fd, "pidfd": run.pidfd}
    record: Record = {key: fd for key, fd in fds.items() if fd >= 0}
    if run.role is not Role.MAIN:
        record["role"] = run.role.value
    if run.failure:
        record["failure"] = run.failure.decode("latin-1")
    return record


def _kept(fd: int) -> Kept:
    try:
        return [fd, identity(fd)]
    except OSError:
        return [fd, ""]


def numbers(record: Record) -> set[int]:
    """The numbers of all descriptors in a unit's record."""
    run = record.get("run", {})
    tables = [record.get("table", {}), record.get("next", {}).get("table", {})]
    found = {kept[0] for table in tables for kept in table.values()}
    found |= {fd for _name, _polled, fd, _identity in record.get("store", ())}
    found |= {fd for fd, _identity in record.get("streams", ())}
    found |= {run[key] for key in ("error_fd", "ready_fd", "pidfd") if key in run}
    return found | ({record["receiver"]} if "receiver" in record else set())


def own_files(record: Record) -> set[str]:
    """Identities of sockets and pipes that were opened for this unit alone: who has one has it from there."""
    tables = [record.get("table", {}), record.get("next", {}).get("table", {})]
    kept = [*(entry for table in tables for entry in table.values()), *record.get("streams", ())]
    return {entry[1] for entry in kept if entry[1].startswith((SOCKET, PIPE))}


def sockets(record: Record) -> dict[str, int]:
    """The sockets of its table by identity, with their numbers."""
    return {kept[1]: kept[0] for kept in record.get("table", {}).values() if kept[1].startswith(SOCKET)}
