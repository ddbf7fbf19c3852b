"""The state file: one JSON object a line, the last one about a thing counts.

It is written at once when something changes, so that it is true whenever spawnd may be
killed.  It grows until it is several times as long as what it says; then it is written anew
under another name, which takes its place.  A line that was cut off was never written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from supervisor.json_text import dumps_exactly, loads_exactly

Record = dict[str, Any]

ROOM = 1 << 20  # bytes that the file may grow by in any case
TICKS = os.sysconf("SC_CLK_TCK")
FACTOR = 4  # times its first length that it may grow to


class StateFile:
    """The file at `path`, which is its owner's alone.  Owns the descriptor."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._size = 0
        self._limit = 0

    def replace(self, records: Iterable[Record]) -> None:
        """Write the file anew: all of it or, with an OSError, none."""
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
        """Add to the file.  Raises OSError, and then nothing was added; `replace` comes first, ever."""
        data = b"".join(map(encode, records))
        try:
            self._size += write_all(self._fd, data)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
                os.lseek(self._fd, self._size, os.SEEK_SET)
            raise

    def is_in_place(self) -> bool:
        """Whether the path leads to the file that is written to."""
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
        """There is nothing left to be known.

        A file that cannot be removed would tell the next spawnd of services that have gone.
        """
        self._close()
        with suppress(OSError):
            os.unlink(self.path)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def now() -> Record:
    """That all is true now, by the clock that the kernel dates processes with: nobody can set it."""
    return {"at": int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)}


def encode(record: Record) -> bytes:
    return dumps_exactly(record).encode() + b"\n"


def write_all(fd: int, data: bytes) -> int:
    """Write all of it and return how much that is.  Raises OSError, also where only a part had room."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    return len(data)


def read_records(data: bytes) -> tuple[list[Record], int]:
    """The records of a state file, and how many lines are none: only the last one may be cut off."""
    records: list[Record] = []
    damaged = 0
    for line in data.split(b"\n")[:-1]:
        try:
            record = loads_exactly(line.decode())
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            damaged += 1
    return records, damaged
