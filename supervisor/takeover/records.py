"""The record of a unit, as plain data, and the writer that keeps the records in the state file up to date.

A record has everything that the next spawnd needs to restore the unit. A descriptor is saved as
`[number here, identity]`; the identity is '' if it cannot be read. After an exec spawnd still has the descriptors;
after a loss it has to get them back. A `Source` does either. To restore a unit starts, stops and signals nothing.

Changes are written at the end of each turn of the loop. An event that has to be written before it takes effect,
such as a new child before it becomes the service, needs a `flush`. A failure to write stops nothing; the file is
tried again until it can be written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

from supervisor.control.path_watch import PathWatch
from supervisor.definitions.report import SharedValues, differing, saved_fields, service_record, settings_record
from supervisor.definitions.service import Service, Settings, Slot, slot_name
from supervisor.lifecycle.life import Ended, Idleness
from supervisor.linux.file_status import number_of_process
from supervisor.linux.open_files import SOCKET, identity
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop, Timer
from supervisor.manager.functions import Sources
from supervisor.manager.host import HostFacts
from supervisor.manager.unit import SESSIONS, Pending, Unit
from supervisor.notify.store import Stored
from supervisor.process.cgroup import Leaf
from supervisor.process.held_descriptors import Opened, wanted
from supervisor.process.run import Role, Run
from supervisor.state.state import Record, StateFile, header, life_record, now, read_life

RUN_FDS = ("error_fd", "report_fd", "ready_fd", "pidfd", "output_fd")  # descriptors of a run
_ENDED = saved_fields(Ended)
Take = Callable[[int], bool]
"""Takes over a descriptor; returns False, and leaves it to the caller, if it is not wanted any more."""
TakeBack = Callable[[Slot, Opened], bool]

STORE_MAX = 1 << 20  # descriptors that were stored before fit in again
RETRY = 5.0  # seconds until a file that could not be written is tried again
SOON = 0.05  # seconds after an exec, and between two tries for new processes
SETTLED = 1.0  # seconds after a change; most services have forked their processes by then

# the other saved attributes, with the keys that `unit_record` and `restore` use for them
HELD = {
    "cgroup": ("cgroup",),
    "life": ("life",),
    "pending": ("next",),
    "receiver": ("receiver",),
    "run": ("pid", "started", "run"),
    "store": ("store",),  # in separate lines: `store_record`
    "table": ("table", "ports"),
}


class Field(NamedTuple):
    """A saved attribute of a unit; `key` is its permanent name in the record. Defaults are not saved."""

    attribute: str
    key: str
    default: object
    write: Callable[[Any], object] | None = None  # None: unchanged
    read: Callable[[Any], object] | None = None


# every attribute of a unit that is saved as plain data; those of `HELD` refer to the process or the kernel
FIELDS = (
    Field("call_ended", "call_ended", None, lambda ended: differing(ended, _ENDED), lambda record: Ended(**record)),
    Field("check_output", "check_output", (), list, tuple),
    Field("disconnected", "disconnected", ""),
    Field("ended", "ended", None, lambda ended: differing(ended, _ENDED), lambda record: Ended(**record)),
    Field("ended_clean", "ended_clean", None),
    Field("first_started", "first_started", 0),
    Field("flushed", "flushed", 0),
    Field("frozen", "frozen", None, lambda pids: [list(pair) for pair in pids.items()], dict),
    Field("has_lost_children", "lost_children", False),
    Field("idle", "idle_since", None, lambda idle: idle.since, lambda since: Idleness(since)),
    Field("internal", "internal", False),
    Field("is_sought", "is_sought", False),
    Field("last_call", "last_call", ""),
    Field("last_exit", "last_exit", ""),
    Field("leftover_pids", "others", {}, lambda pids: [list(pair) for pair in pids.items()], dict),
    Field("mark", "mark", ""),
    Field("notify_path", "notify_path", ""),
    Field("oom_kills", "oom_kills", 0),
    Field("removed", "removed", False),
    Field("says_busy", "says_busy", False),
    Field("stale", "stale", ""),
    Field("status_text", "status_text", ""),
)


def unit_record(unit: Unit, streams: Iterable[int]) -> Record:
    """Return the record of a unit; `streams` are the descriptors that are held open for its output."""
    record: Record = {"life": life_record(unit.life, unit.service)}
    for attribute, key, default, write, _read in FIELDS:
        value = getattr(unit, attribute)
        if value != default:
            record[key] = value if write is None else write(value)
    if unit.run is not None:
        record |= {"pid": unit.run.pid, "started": unit.run.started, "run": _run_record(unit)}
    held = {
        "cgroup": unit.cgroup.path if unit.cgroup is not None else None,
        "receiver": unit.receiver.fileno() if unit.receiver is not None else None,
        "table": table_record(unit.table) or None,
        "ports": ports_record(unit.table) or None,
        "streams": [_saved(fd) for fd in streams] or None,
    }
    record |= {key: value for key, value in held.items() if value is not None}
    if unit.pending is not None:
        opened = unit.pending.opened.items()
        tables = {"table": table_record(opened), "ports": ports_record(opened)}
        record["next"] = {"service": service_record(unit.pending.service)} | tables
    return record


def store_record(unit: Unit, come: Iterable[Stored], gone: Iterable[int] = ()) -> Record:
    """Return the additions to the unit's store and the removals: a store may be large and change often."""
    record: Record = {"name": unit.name}
    stored = [[stored.name, stored.polled, stored.fd, stored.file] for stored in come]
    dropped = list(gone)
    return record | ({"stored": stored} if stored else {}) | ({"dropped": dropped} if dropped else {})


def table_record(entries: Iterable[tuple[Slot, Opened]]) -> dict[str, list[object]]:
    """Return by slot: number, identity and, for a socket with a file, device and inode of that file."""
    return {slot_name(slot): [*_saved(opened.fd), opened.inode] for slot, opened in entries}


def ports_record(entries: Iterable[tuple[Slot, Opened]]) -> dict[str, int]:
    """Return by slot the ports that the kernel has chosen."""
    return {slot_name(slot): opened.port for slot, opened in entries if opened.port != opened.spec.port}


def _run_record(unit: Unit) -> Record:
    run = unit.run
    assert run is not None
    fds = {key: getattr(run, key) for key in RUN_FDS}
    record: Record = {key: fd for key, fd in fds.items() if fd >= 0}
    if run.role is not Role.MAIN:
        record["role"] = run.role.value
    if run.files is not None:
        record["opens"] = list(run.files)  # an exec must not close them, as it might wait for their server
    if run.in_doubt:
        record |= {"in_doubt": True, "owed": run.owed}
    else:
        run.number = run.number or number_of_process(run.pid)
        if run.number:
            record["number"] = run.number
    for key in ("failure", "output"):
        if data := getattr(run, key):
            record[key] = data.decode("latin-1")
    return record


def _saved(fd: int) -> list[object]:  # number and identity
    try:
        return [fd, identity(fd)]
    except OSError:
        return [fd, ""]


def sockets(record: Record) -> dict[str, int]:
    """Return the numbers of the sockets in its table, by identity."""
    return {saved[1]: saved[0] for saved in record.get("table", {}).values() if saved[1].startswith(SOCKET)}


class Source(Protocol):
    """The source of the process and the descriptors of one unit."""

    def run(self) -> Run | None:
        """Return the process; None if it has ended."""

    def descriptor(self, saved: Sequence[Any], slot: Slot | None = None) -> int | None:
        """Return a saved descriptor, which the caller owns from now on; None if it is lost.

        `saved` has its number in the spawnd that wrote the record, and its identity. `slot` is its slot in
        the table of the service, if any.
        """

    def streams(self, saved: Sequence[Sequence[Any]]) -> list[int]:
        """Return the descriptors of its output, all of them or none."""

    def find_later(self, saved: Sequence[Any], what: str, take: Take) -> bool:
        """Search for a missing descriptor later, and give it to `take`; return False if it is lost.

        `what` names it in the log if it is not found.
        """


def restore(unit: Unit, record: Record, source: Source, host: HostFacts, shared: SharedValues) -> None:
    """Restore a new unit from its record. Raises any exception caused by a record of another version."""
    unit.life = read_life(record["life"], unit.service)
    for attribute, key, _default, _write, read in FIELDS:
        if key in record:
            setattr(unit, attribute, record[key] if read is None else read(record[key]))
    if "receiver" in record and not unit.notify_path:
        unit.notify_path = host.runtime.old_notify_path(unit.name)
    if "cgroup" in record and host.subtree is not None:
        unit.cgroup = Leaf(host.subtree, record["cgroup"])
    unit.run = source.run()
    unit.table.adopt(unit.service, restore_table(unit.service, record, source, unit.table.take_back))
    for name, polled, *saved in record.get("store", ()):
        fd = source.descriptor(saved)
        what = f"stored descriptor {name!r} ({saved[1]})"
        take = partial(_take_into_store, unit, name, polled)
        if fd is not None:
            take(fd)
        elif not source.find_later(saved, what, take) and name != SESSIONS:  # the next acceptor has a new one
            log.warning("%s: %s is lost", unit.name, what)
    streams = source.streams(record.get("streams", ()))
    if streams:
        host.outputs.give(unit.name, streams)
    if "next" in record:
        service = shared.service(record["next"]["service"])
        unit.pending = Pending(service, restore_table(service, record["next"], source))


def _take_into_store(unit: Unit, name: str, polled: bool, fd: int) -> bool:
    unit.store.add(name, [fd], polled, STORE_MAX, sys.maxsize, bool(unit.service.worker))
    return True


def restore_table(
    service: Service, record: Mapping[str, Any], source: Source, take_back: TakeBack | None = None
) -> dict[Slot, Opened]:
    """Return the descriptors of the table in a record by slot, without lost ones.

    Descriptors that are found later go to `take_back`.
    """
    table, ports = record.get("table", {}), record.get("ports", {})
    opened: dict[Slot, Opened] = {}
    for slot, spec in wanted(service).items():
        name = slot_name(slot)
        if name in table:
            *saved, inode = table[name]
            known = {"inode": tuple(inode) if inode is not None else None, "port": ports.get(name, spec.port)}
            fd = source.descriptor(saved, slot)
            if fd is not None:
                opened[slot] = Opened(spec, fd, **known)
            elif take_back is not None:
                take = partial(_take_into_table, take_back, slot, partial(Opened, spec, **known))
                source.find_later(saved, f"descriptor {name}", take)
    return opened


def _take_into_table(take_back: TakeBack, slot: Slot, make: Callable[[int], Opened], fd: int) -> bool:
    return take_back(slot, make(fd))


class Known(Protocol):
    """Everything that has to be written."""

    loop: Loop
    host: HostFacts
    units: dict[str, Unit]
    settings: Settings
    sources: Sources
    shutting_down: bool


class StateWriter:
    """Writer of the state of `known` to the file at `path`, from `begin` to `end`.

    `is_unsettled`: services that a lost spawnd was stopping are yet to be started again.
    """

    def __init__(self, known: Known, path: str) -> None:
        self._known = known
        self._loop = known.loop
        self._file = StateFile(path)
        self._store = known.host.systemd_store if known.host.systemd_store.is_used else None
        self._changed: dict[str, None] = {}  # names of changed units, in order of change
        self._stores: dict[str, None] = {}  # names of units with a changed store
        self._services: dict[str, Service] = {}  # as written last
        self._settings: object = None
        self._sources: set[str] = set()  # digests of the texts in the file
        self._ending = False
        self._is_begun = False
        self._first: Timer | None = None
        self._retry: Timer | None = None
        self._dates: Timer | None = None
        self._failing = False
        self._is_changing = False
        self.is_unsettled = False
        self._watch: PathWatch | None = None

    def begin(self) -> None:
        """Write the complete state now, and changes from now on."""
        self._begin()
        self.renew()

    def begin_soon(self) -> None:
        """Write the complete state a moment later, and before the first change: the file has it from before the exec.

        Meanwhile clients are answered.
        """
        self._begin()
        self._changed.clear()
        self._stores.clear()
        self._first = self._loop.call_later(SOON, self._write_first)

    def _begin(self) -> None:
        self._is_begun = True
        self._loop.before_wait(self.flush)
        self._watch = PathWatch(self._loop, self._file.path, self._look)

    def _write_first(self) -> None:
        """Write what `begin_soon` has put off. All sockets in use are known by then."""
        if self._first is not None:
            self._first.cancel()
            self._first = None
        self.renew()
        if self._store is not None:
            self._store.drop_unwanted()

    def end_watch(self) -> None:
        """Watch the file no longer: everything is being stopped."""
        if self._watch is not None:
            self._watch.end()

    def end(self) -> None:
        """Remove the file: all services have stopped in order."""
        self._is_begun = False
        for timer in (self._first, self._retry, self._dates):
            if timer is not None:
                timer.cancel()
        if self._watch is not None:
            self._watch.close()
        self._file.remove()

    def look_again(self) -> None:
        """Write to a run-time folder that was made anew."""
        if self._watch is not None:
            self._watch.renew()

    def _look(self) -> None:
        """Write the file again if it was removed or replaced: the next spawnd would lack the state."""
        if self._is_begun and self._first is self._retry is None and not self._file.is_in_place():
            self.renew()
            if not self._failing:
                notice("%s was removed or replaced: written anew", self._file.path)

    def touch(self, unit: Unit) -> None:
        """Note a change of the unit."""
        self._changed[unit.name] = None

    def touch_store(self, unit: Unit) -> None:
        """Note a change of the unit's store."""
        self._stores[unit.name] = None

    @property
    def is_current(self) -> bool:
        """Whether the file has all changes."""
        return self._is_begun and self._retry is None and not self._changed

    @contextmanager
    def change(self) -> Iterator[None]:
        """Write the changes of a block at its end, but new processes at once.

        Written in the middle, other units would seem to have changed: a spawnd after a loss would not start them.
        """
        if self._first is not None:
            self._write_first()
        self._is_changing = True
        try:
            yield
        finally:
            self._is_changing = False
        self.flush()

    def flush(self, new: Unit | None = None) -> None:
        """Write the changes. A unit whose `new` process is released next does not wait for the next try."""
        if new is not None and self._retry is not None and self._loop.clock() >= self._retry.when - RETRY + SOON:
            self._retry.cancel()
            self.renew()
        if not self._is_begun or self._retry is not None:
            return
        if self._first is not None:
            if self._changed or self._stores:
                self._write_first()
            return
        records = list(self._changes(new if self._is_changing else None))
        if records:
            self._append(records)
            self._date_soon()

    def _append(self, records: list[Record]) -> None:
        with suppress(OSError):  # a new file may have room
            self._file.append([*records, now()])
            if self._is_changing or not self._file.is_long:
                return
        self.renew()

    def _date_soon(self) -> None:
        """Schedule a new date without cgroups: `left_by` needs to know when spawnd still knew the main process."""
        if self._known.host.subtree is None:
            if self._dates is not None:
                self._dates.cancel()
            self._dates = self._loop.call_later(SETTLED, self._date)

    def _date(self) -> None:
        """Confirm the present state with a new date."""
        self._dates = None
        if self._is_begun and self._retry is None and not self._changed:
            self._append([])

    def everything(self) -> Iterator[Record]:
        """Yield all records, in the order of the file."""
        known = self._known
        yield header()
        yield {"settings": settings_record(known.settings)}
        for digest, text in known.sources.texts.items():
            yield {"text": digest, "source": text}
        for unit in known.units.values():
            yield {"name": unit.name, "service": service_record(unit.service)}
            yield self._unit(unit)
            if unit.store:
                yield store_record(unit, unit.store.stored())
        if known.shutting_down or self.is_unsettled:
            yield {"ending": True}
        yield now()

    def _changes(self, only: Unit | None = None) -> Iterator[Record]:
        known = self._known
        if self._settings is not known.settings:
            self._settings = known.settings
            yield {"settings": settings_record(known.settings)}
        for digest, text in known.sources.texts.items():
            if digest not in self._sources:
                self._sources.add(digest)
                yield {"text": digest, "source": text}
        changed = self._changed if only is None else {only.name: None}
        self._changed = {name: None for name in self._changed if name not in changed}
        for name in changed:
            unit = known.units.get(name)
            if unit is None:
                self._services.pop(name, None)
                if self._store is not None:
                    self._store.want(name, {})
                yield {"name": name, "gone": True}
                continue
            if self._services.get(name) is not unit.service:
                self._services[name] = unit.service
                yield {"name": name, "service": service_record(unit.service)}
            yield self._unit(unit)
        yield from self._store_changes()
        if known.shutting_down and not self._ending:
            self._ending = True
            yield {"ending": True}

    def _store_changes(self) -> Iterator[Record]:
        changed, self._stores = self._stores, {}
        for name in changed:
            unit = self._known.units.get(name)
            if unit is not None:
                yield store_record(unit, *unit.store.take_changes())

    def _unit(self, unit: Unit) -> Record:
        host = self._known.host
        record = unit_record(unit, host.outputs.saved_streams(unit.name))
        if self._store is not None:
            self._store.want(unit.name, sockets(record))
        return {"name": unit.name, "unit": record}

    def renew(self) -> None:
        """Write the complete state now."""
        self._retry = None
        self._changed.clear()
        self._stores.clear()
        known = self._known
        for unit in known.units.values():
            unit.store.take_changes()
        self._services = {unit.name: unit.service for unit in known.units.values()}
        self._settings = known.settings
        self._sources = set(known.sources.texts)
        self._ending = known.shutting_down
        try:
            self._file.replace(self.everything())
        except OSError as error:
            self._failed(error)
            return
        self._date_soon()
        if self._failing:
            self._failing = False
            notice("state written to %s again", self._file.path)

    def _failed(self, error: OSError) -> None:
        """Log the failure once, and try again later."""
        if not self._failing:
            self._failing = True
            text = "cannot write %s: %s; tried again every %g s; what changes meanwhile would not outlive spawnd"
            log.error(text, self._file.path, error.strerror, RETRY)
        self._retry = self._loop.call_later(RETRY, self.renew)
