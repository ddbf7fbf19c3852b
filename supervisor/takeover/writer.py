"""Keeping the state file up to date: changes are written at the end of each turn of the loop.

An event that has to be written before it takes effect, such as a new child before it becomes the service,
needs a `flush`. A failure to write stops nothing; the file is tried again until it can be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from supervisor.control.path_watch import PathWatch
from supervisor.definitions.report import service_record, settings_record
from supervisor.definitions.service import Service, Settings
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop, Timer
from supervisor.manager.functions import Sources
from supervisor.manager.host import HostFacts
from supervisor.manager.unit import Unit
from supervisor.state.state import Record, StateFile, header, now
from supervisor.takeover.records import sockets, store_record, unit_record

RETRY = 5.0  # seconds until a file that could not be written is tried again
SETTLED = 1.0  # seconds after a change; most services have forked their processes by then


class Known(Protocol):
    """Everything that has to be written."""

    loop: Loop
    host: HostFacts
    units: dict[str, Unit]
    settings: Settings
    sources: Sources
    shutting_down: bool


class StateWriter:
    """Writer of the state of `known` to the file at `path`, from `begin` to `end`."""

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
        self._retry: Timer | None = None
        self._dates: Timer | None = None
        self._failing = False
        self._watch: PathWatch | None = None

    def begin(self) -> None:
        """Write the complete state now, and changes from now on."""
        self._is_begun = True
        self._loop.before_wait(self.flush)
        self._watch = PathWatch(self._loop, self._file.path, self._look)
        self._replace()

    def end(self) -> None:
        """Remove the file: all services have stopped in order."""
        self._is_begun = False
        for timer in (self._retry, self._dates):
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
        if self._is_begun and self._retry is None and not self._file.is_in_place():
            self._replace()
            if not self._failing:
                notice("%s was removed or replaced: written anew", self._file.path)

    def touch(self, unit: Unit) -> None:
        """Note a change of the unit."""
        self._changed[unit.name] = None

    def touch_store(self, unit: Unit) -> None:
        """Note a change of the unit's store."""
        self._stores[unit.name] = None

    def flush(self) -> None:
        """Write the changes."""
        if not self._is_begun or self._retry is not None:
            return
        records = list(self._changes())
        if records:
            self._append(records)
            self._date_soon()

    def _append(self, records: list[Record]) -> None:
        try:
            self._file.append([*records, now()])
        except OSError as error:
            self._failed(error)
        else:
            if self._file.is_long:
                self._replace()

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
        if known.shutting_down:
            yield {"ending": True}
        yield now()

    def _changes(self) -> Iterator[Record]:
        known = self._known
        if self._settings is not known.settings:
            self._settings = known.settings
            yield {"settings": settings_record(known.settings)}
        for digest, text in known.sources.texts.items():
            if digest not in self._sources:
                self._sources.add(digest)
                yield {"text": digest, "source": text}
        changed, self._changed = self._changed, {}
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

    def _replace(self) -> None:
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
        self._retry = self._loop.call_later(RETRY, self._replace)
