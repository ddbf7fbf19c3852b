"""The state file: lines of JSON, all that they say, and whether that is of use to this spawnd at all.

    {"spawnd": FORMAT, "version": TEXT, "boot": ID, "pids": NUMBER, "pid": PID}   comes first
    {"settings": {…}}
    {"text": DIGEST, "source": TEXT}      a definition file as it was checked, for the functions in it
    {"name": NAME, "service": {…}}        the definition in force, as in the report of an evaluation
    {"name": NAME, "unit": {…}}           the running unit; `pid` and `started` are the same in every format
    {"name": NAME, "stored": [[FDNAME, POLLED, NUMBER, IDENTITY], …], "dropped": [NUMBER, …]}
                                          additions to its store, after the removals
    {"name": NAME, "gone": true}
    {"ending": true}                      spawnd is stopping all services
    {"at": TICKS}                         when everything above was true, in clock ticks since boot

The state that a spawnd passes to itself over an exec has two more:

    {"exec": {…}}                         work in progress, and descriptors of spawnd itself
    {"signals": [NUMBER, …]}              signals that arrived and were not handled yet
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from supervisor import __version__
from supervisor.definitions.report import differing, read_settings
from supervisor.definitions.service import Service, Settings
from supervisor.errors import SpawnError
from supervisor.json_text import dumps_exactly, loads_exactly
from supervisor.lifecycle.life import Cause, Life, Step, Then, of_earlier_version
from supervisor.lifecycle.life import State as StateOfLife

Record = dict[str, Any]

ROOM = 1 << 20  # bytes by which the file may grow in any case
TICKS = os.sysconf("SC_CLK_TCK")
FACTOR = 4  # times its first length up to which it may grow

FORMAT = 1
_LIFE = [(name, name, default) for name, default in Life()._asdict().items()]
_ENUMS: dict[str, Any] = {"state": StateOfLife, "step": Step, "then": Then, "cause": Cause}


class StateFile:
    """The state file at `path`, which only its owner can access. Owns the descriptor.

    Each change is written immediately, so that the file is correct whenever spawnd is killed. The last line about
    an object counts. Once the file has grown to several times its first length, it is written anew under another
    name and renamed. A truncated line counts as not written.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._size = 0
        self._limit = 0

    def replace(self, records: Iterable[Record]) -> None:
        """Write the file anew completely, or raise OSError and leave the old one."""
        new = f"{self.path}~"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = write_all(fd, b"".join(map(encode, records)))
            os.rename(new, self.path)
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                os.unlink(new)
            raise
        self._close()
        self._fd, self._size, self._limit = fd, size, max(size * FACTOR, size + ROOM)

    def append(self, records: Iterable[Record]) -> None:
        """Append to the file. Raises OSError, and then nothing was appended. `replace` has to be called first."""
        data = b"".join(map(encode, records))
        try:
            self._size += write_all(self._fd, data)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
                os.lseek(self._fd, self._size, os.SEEK_SET)
            raise

    def is_in_place(self) -> bool:
        """Whether the path leads to the file that is being written."""
        try:
            found, ours = os.lstat(self.path), os.fstat(self._fd)
        except OSError:
            return False
        return os.path.samestat(found, ours)

    @property
    def is_long(self) -> bool:
        """Whether it is time for `replace`."""
        return self._size > self._limit

    def remove(self) -> None:
        """Remove the file, as no state is left.

        A file that remained would tell the next spawnd about services that are gone.
        """
        self._close()
        with suppress(OSError):
            os.unlink(self.path)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def life_record(life: Life, service: Service) -> Record:
    return ({"kept": False} if of_earlier_version(service, life) != life else {}) | differing(life, _LIFE)


def read_life(record: Record, service: Service) -> Life:
    """Return the life in a record. Raises TypeError or ValueError for a record of another version."""
    life = Life(**{key: _ENUMS[key](value) if key in _ENUMS else value for key, value in record.items()})
    return life if "kept" in record else of_earlier_version(service, life)


def now() -> Record:
    """Return the record that all is true now, by the clock of the kernel's start times, which cannot be set."""
    return {"at": int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)}


def encode(record: Record) -> bytes:
    return dumps_exactly(record).encode() + b"\n"


def write_all(fd: int, data: bytes) -> int:
    """Write all data and return its length. Raises OSError, also if only a part had room."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    return len(data)


def read_records(data: bytes) -> Iterator[tuple[bytes, Record | None]]:
    """Yield the lines of a state file, each with its record; None if it is damaged. The last one may be truncated."""
    for line in io.BytesIO(data):
        if line.endswith(b"\n"):
            yield line, _read(line)


def _read(line: bytes) -> Record | None:
    try:
        record = loads_exactly(line.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


class Records(MutableMapping[str, Record]):
    """Records by name, in order of appearance; `key` is the key of a record in its line.

    Each is kept as its line, and read again when it is asked for. As objects, those of 10,000 services would take 50
    MB, which Python's allocator would not return: the services share their strings.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._lines: dict[str, bytes] = {}

    def keep(self, name: str, line: bytes) -> None:
        """Set the record to that in a line."""
        self._lines[name] = line

    def __getitem__(self, name: str) -> Record:
        found: Record = loads_exactly(self._lines[name].decode())[self._key]
        return found

    def __setitem__(self, name: str, record: Record) -> None:
        self._lines[name] = encode({self._key: record})

    def __delitem__(self, name: str) -> None:
        del self._lines[name]

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


class StateError(SpawnError):
    """The state cannot be used; the text says why."""


@dataclass(slots=True)
class State:
    """The state. `services` and `units` by name, in order of appearance; `damaged` is the number of unreadable lines.

    The record of each unit has the content of its store as `store`, collected from `stores`.

    Everything was true at the time `written`, in clock ticks since boot; 0 if that is unknown.
    """

    version: str = ""
    pid: int = 0
    settings: Record = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    services: Records = field(default_factory=partial(Records, "service"))
    units: Records = field(default_factory=partial(Records, "unit"))
    ending: bool = False
    stores: dict[str, dict[int, list[object]]] = field(default_factory=dict)
    exec: Record = field(default_factory=dict)
    signals: list[int] = field(default_factory=list)
    damaged: int = 0
    written: int = 0

    def settings_in_force(self) -> Settings:
        """Return the saved settings, or the defaults if they are of another version."""
        try:
            return read_settings(self.settings)
        except TypeError:
            return Settings()


def header() -> Record:
    """Return the record of the writer, and of the boot and namespace in which its pids are valid."""
    return {
        "spawnd": FORMAT,
        "version": __version__,
        "boot": _boot(),
        "pids": _pids(),
        "pid": os.getpid(),
    }


def read_state(data: bytes) -> State:
    """Return the state. Raises StateError if it cannot be true on this host, boot or PID namespace."""
    records = read_records(data)
    first = next((record for _line, record in records if record is not None), {})
    if "spawnd" not in first:
        raise StateError("it has no beginning")
    if first.get("boot") != _boot():
        raise StateError("it is of another boot")
    if first.get("pids") != _pids():
        raise StateError("it is of another PID namespace")
    pid = first.get("pid")
    state = State(str(first.get("version")), pid if isinstance(pid, int) else 0)
    for line, record in records:
        if record is None:
            state.damaged += 1
        else:
            _take(state, line, record)
    for name, stored in state.stores.items():
        if stored and name in state.units:
            state.units[name] = {**state.units[name], "store": list(stored.values())}
    if first["spawnd"] != FORMAT:
        # nothing can be taken over, but the running processes are still known
        state.services.clear()
        state.settings.clear()
    return state


def _take(state: State, line: bytes, record: Record) -> None:
    match record:
        case {"name": str(name), "service": dict()}:
            state.services.keep(name, line)
        case {"name": str(name), "unit": dict()}:
            state.units.keep(name, line)
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
    """Update a store. Numbers are reused, and the latest entry counts."""
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
