"""All that a state file says, and whether it is of use to this spawnd at all.

    {"spawnd": FORMAT, "version": TEXT, "boot": ID, "pids": NUMBER, "pid": PID}   comes first
    {"settings": {…}}
    {"text": DIGEST, "source": TEXT}      a definition file as it was checked, for the functions in it
    {"name": NAME, "service": {…}}        the definition in force, as in the report of an evaluation
    {"name": NAME, "unit": {…}}           how it runs; `pid` and `started` are the same in every format
    {"name": NAME, "stored": [[FDNAME, POLLED, NUMBER, IDENTITY], …], "dropped": [NUMBER, …]}
                                          what has come to its store, and what has gone before that
    {"name": NAME, "gone": true}
    {"ending": true}                      spawnd stops everything
    {"at": TICKS}                         when all that stands above was true, in clock ticks since boot

The state that a spawnd hands to itself over an exec has two more:

    {"exec": {…}}                         what is under way, and descriptors of spawnd itself
    {"signals": [NUMBER, …]}              signals that came and were not handled yet
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from supervisor import __version__
from supervisor.definitions.report import read_settings
from supervisor.definitions.service import Settings
from supervisor.errors import SpawnError
from supervisor.state.file import Record, read_records

FORMAT = 1


class StateError(SpawnError):
    """The state is of no use; the text says why."""


@dataclass(slots=True)
class State:
    """`services` and `units` by name, in the order in which they came to be; `damaged` lines could not be read.

    The content of its store is in the record of each unit as `store`, collected from `stores`.

    All that it says was true at the time `written`, in clock ticks since boot; 0: at some time.
    """

    version: str = ""
    pid: int = 0
    settings: Record = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    services: dict[str, Record] = field(default_factory=dict)
    units: dict[str, Record] = field(default_factory=dict)
    ending: bool = False
    stores: dict[str, dict[int, list[object]]] = field(default_factory=dict)
    exec: Record = field(default_factory=dict)
    signals: list[int] = field(default_factory=list)
    damaged: int = 0
    written: int = 0

    def settings_in_force(self) -> Settings:
        """The settings that there were; the defaults where another version knew others."""
        try:
            return read_settings(self.settings)
        except TypeError:
            return Settings()


def header() -> Record:
    """The writer, and the boot and namespace in which the pids are valid."""
    return {
        "spawnd": FORMAT,
        "version": __version__,
        "boot": _boot(),
        "pids": _pids(),
        "pid": os.getpid(),
    }


def read_state(data: bytes) -> State:
    """Raises StateError where nothing in it can be true here."""
    records, damaged = read_records(data)
    first = records[0] if records else {}
    if "spawnd" not in first:
        raise StateError("it has no beginning")
    if first.get("boot") != _boot():
        raise StateError("it is of another boot")
    if first.get("pids") != _pids():
        raise StateError("it is of another PID namespace")
    pid = first.get("pid")
    state = State(str(first.get("version")), pid if isinstance(pid, int) else 0, damaged=damaged)
    _take(state, records[1:])
    for name, unit in state.units.items():
        if stored := state.stores.get(name):
            unit["store"] = list(stored.values())
    if first["spawnd"] != FORMAT:
        # so that nothing can be taken over, and yet it is known what runs
        state.services.clear()
        state.settings.clear()
    return state


def _take(state: State, records: Iterable[Record]) -> None:
    for record in records:
        match record:
            case {"name": str(name), "service": dict(service)}:
                state.services[name] = service
            case {"name": str(name), "unit": dict(unit)}:
                state.units[name] = unit
            case {"name": str(name), "gone": True}:
                state.services.pop(name, None)
                state.units.pop(name, None)
                state.stores.pop(name, None)
            case {"name": str(name), "stored": list()} | {"name": str(name), "dropped": list()}:
                _take_store(state.stores.setdefault(name, {}), record)
            case {"text": str(digest), "source": str(source)}:
                state.sources[digest] = source
            case {"settings": dict(settings)}:
                state.settings = settings
            case {"exec": dict(kept)}:
                state.exec = kept
            case {"signals": list(signums)}:
                state.signals = signums
            case {"ending": True}:
                state.ending = True
            case {"at": int(ticks)}:
                state.written = ticks
            case _:
                state.damaged += 1


def _take_store(store: dict[int, list[object]], record: Record) -> None:
    """Numbers are used again: what comes is the latest that has its number."""
    for fd in record.get("dropped", ()):
        store.pop(fd, None)
    for entry in record.get("stored", ()):
        match entry:
            case [str(), bool(), int(fd), str()]:
                store.pop(fd, None)
                store[fd] = entry


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _pids() -> int:
    return os.stat("/proc/self/ns/pid").st_ino
