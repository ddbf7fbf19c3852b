"""Keeping the state file true: what has changed is written at the end of each turn of the loop.

What must be written before it happens (a child, before it becomes the service) asks for
`flush`.  A file that cannot be written stops nothing: it is tried again until it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from supervisor.definitions.report import service_record, settings_record
from supervisor.log.logger import log, notice
from supervisor.manager.records import sockets, store_record, unit_record
from supervisor.state.file import StateFile
from supervisor.state.state import header, now

if TYPE_CHECKING:
    from supervisor.definitions.service import Service
    from supervisor.loop.loop import Timer
    from supervisor.manager.manager import Manager
    from supervisor.manager.unit import Unit
    from supervisor.state.file import Record

RETRY = 5.0  # seconds until a file that could not be written is tried again
SETTLED = 1.0  # seconds after a change, in which most services fork what they fork


class Keeper:
    """Writes what `manager` knows to the file at `path`, from `begin` to `end`."""

    def __init__(self, manager: Manager, path: str) -> None:
        self._manager = manager
        self._loop = manager.loop
        self._file = StateFile(path)
        self._changed: dict[str, None] = {}  # names, in the order in which they changed
        self._stores: dict[str, None] = {}  # names of those whose store has changed
        self._services: dict[str, Service] = {}  # as they were written last
        self._settings: object = None
        self._texts: set[str] = set()  # digests of those that were written
        self._ending = False
        self._kept = False
        self._retry: Timer | None = None
        self._dates: Timer | None = None
        self._failing = False

    def begin(self) -> None:
        """Write all that there is, and from now on what changes."""
        self._kept = True
        self._loop.before_wait(self.flush)
        self._replace()

    def end(self) -> None:
        """Everything has been stopped in order: there is nothing to go on with."""
        self._kept = False
        for timer in (self._retry, self._dates):
            if timer is not None:
                timer.cancel()
        self._file.remove()

    def touch(self, unit: Unit) -> None:
        """Something about the unit has changed."""
        self._changed[unit.name] = None

    def touch_store(self, unit: Unit) -> None:
        """Something has come to the unit's store, or gone."""
        self._stores[unit.name] = None

    def flush(self) -> None:
        """Write what has changed."""
        if not self._kept or self._retry is not None:
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
        """Without cgroups it matters who was there while spawnd still knew the main process: `left_by`."""
        if self._manager.host.subtree is None:
            if self._dates is not None:
                self._dates.cancel()
            self._dates = self._loop.call_later(SETTLED, self._date)

    def _date(self) -> None:
        """All is still true, and nothing has changed that would have it said."""
        self._dates = None
        if self._kept and self._retry is None and not self._changed:
            self._append([])

    def everything(self) -> Iterator[Record]:
        """All records, the first ones first."""
        manager = self._manager
        yield header()
        yield {"settings": settings_record(manager.settings)}
        for digest, text in manager.texts:
            yield {"text": digest, "source": text}
        for unit in manager.units.values():
            yield {"name": unit.name, "service": service_record(unit.service)}
            yield self._unit(unit)
            if unit.store:
                yield store_record(unit, unit.store.stored())
        if manager.shutting_down:
            yield {"ending": True}
        yield now()

    def _changes(self) -> Iterator[Record]:
        manager = self._manager
        if self._settings is not manager.settings:
            self._settings = manager.settings
            yield {"settings": settings_record(manager.settings)}
        for digest, text in manager.texts:
            if digest not in self._texts:
                self._texts.add(digest)
                yield {"text": digest, "source": text}
        changed, self._changed = self._changed, {}
        for name in changed:
            unit = manager.units.get(name)
            if unit is None:
                self._services.pop(name, None)
                manager.host.depot.want(name, {})
                yield {"name": name, "gone": True}
                continue
            if self._services.get(name) is not unit.service:
                self._services[name] = unit.service
                yield {"name": name, "service": service_record(unit.service)}
            yield self._unit(unit)
        yield from self._store_changes()
        if manager.shutting_down and not self._ending:
            self._ending = True
            yield {"ending": True}

    def _store_changes(self) -> Iterator[Record]:
        changed, self._stores = self._stores, {}
        for name in changed:
            unit = self._manager.units.get(name)
            if unit is not None:
                yield store_record(unit, *unit.store.take_changes())

    def _unit(self, unit: Unit) -> Record:
        host = self._manager.host
        record = unit_record(unit, host.outputs.kept(unit.name))
        host.depot.want(unit.name, sockets(record))
        return {"name": unit.name, "unit": record}

    def _replace(self) -> None:
        self._retry = None
        self._changed.clear()
        self._stores.clear()
        manager = self._manager
        for unit in manager.units.values():
            unit.store.take_changes()
        self._services = {unit.name: unit.service for unit in manager.units.values()}
        self._settings = manager.settings
        self._texts = {digest for digest, _text in manager.texts}
        self._ending = manager.shutting_down
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
        """Say so once, however often it is tried."""
        if not self._failing:
            self._failing = True
            text = "cannot write %s: %s; tried again every %g s; what changes meanwhile would not outlive spawnd"
            log.error(text, self._file.path, error.strerror, RETRY)
        self._retry = self._loop.call_later(RETRY, self._replace)
