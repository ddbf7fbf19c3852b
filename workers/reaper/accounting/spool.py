"""Rows on disk until the database has them.

A segment is a file of lines.  Rows are appended to the last one; the others are closed, each a
batch, and are taken away when the database has committed it.  So whenever this process is killed,
each row is in a file, in the database or, for a moment, in both, where its key tells.

A row is written before its cgroup is deleted.  Killed in between, the last row of the last segment
is of a cgroup that lives: it alone can be, and it is dropped at the next start.  A write that
was cut off is dropped as well: its cgroup was not deleted.

With a full disk rows are kept in memory, a limited number of them.

What is written is the kernel's to bring to the disk, which survives a death of this process; for
one of the host, whoever has the spool calls `sync` from time to time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from workers.reaper.errors import SpoolError

SUFFIX = ".rows"
DIGITS = 16
SEGMENT = 1 << 18  # bytes, from which on a segment is closed: a batch of some 700 rows
MAX_IN_MEMORY = 10_000  # rows: some 5 MB
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


class Spool:
    """Owns the folder, of which it keeps others away, and the last segment.  Raises SpoolError.

    `limit` is how many bytes all segments may have together.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self.lost = 0  # rows for which there was no room
        self.in_memory: list[bytes] = []
        self._folder = Path(folder)
        self._limit = limit
        self._fd: int | None = None
        self._last = ""  # the name of that segment
        self._length = 0
        self._unsynced: set[str] = set()  # segments that were written to
        self._undo: Callable[[], None] = lambda: None
        try:
            self._folder.mkdir(mode=0o750, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SpoolError(f"cannot use the spool {folder!r}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._sizes = {
                path.name: path.stat().st_size for path in sorted(self._folder.glob("[0-9]" * DIGITS + SUFFIX))
            }
        except OSError as error:
            os.close(self._lock)
            raise SpoolError(f"cannot use the spool {folder!r}: {error.strerror}, another reaper has it") from error
        self._closed = sum(self._sizes.values())  # bytes; thousands of segments are not added up for each row
        self._next = 1 + max((int(name.removesuffix(SUFFIX)) for name in self._sizes), default=0)

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return self._closed + self._length

    @property
    def batches(self) -> tuple[str, ...]:
        """The closed segments, oldest first."""
        return tuple(self._sizes)

    def last_line(self) -> bytes | None:
        """The last row that an earlier process has written whole, after what it did not is cut off.  Raises OSError."""
        if not self._sizes:
            return None
        path = self._path(self.batches[-1])
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        self._cut(path, len(whole) + 1 if whole else 0)
        return whole.rpartition(b"\n")[2] or None

    def drop_last_line(self) -> None:
        """Raises OSError."""
        path = self._path(self.batches[-1])
        self._cut(path, path.read_bytes().removesuffix(b"\n").rfind(b"\n") + 1)

    # writing

    def append(self, line: bytes) -> None:
        """Keep a row, on disk where that can be."""
        if self._length >= SEGMENT:
            self.close_batch()
        if self.size + len(line) > self._limit:
            self.lost += 1
            self._undo = self._find_one
        elif self._write(line):
            self._undo = lambda: self._shorten(len(line))
        elif len(self.in_memory) < MAX_IN_MEMORY:
            self.in_memory.append(line)
            self._undo = lambda: self._pop(line)
        else:
            self.lost += 1
            self._undo = self._find_one

    def take_back(self) -> None:
        """Forget the row that was appended last."""
        undo, self._undo = self._undo, lambda: None
        undo()

    def close_batch(self) -> None:
        """Have what was appended ready to be read, also what could not be written until now."""
        if self.in_memory and self._write(b"".join(self.in_memory)):
            self.in_memory = []
        self._undo = lambda: None
        if self._fd is not None:
            os.close(self._fd)
            self._sizes[self._last] = self._length
            self._closed += self._length
            self._fd = None
            self._length = 0
            self._next += 1

    def close(self) -> None:
        self.close_batch()
        os.close(self._lock)

    # reading

    def read(self, batch: str) -> list[bytes]:
        """The lines of a closed segment.  Raises OSError."""
        return self._path(batch).read_bytes().splitlines()

    def remove(self, batch: str) -> None:
        """The database has it.  Raises OSError."""
        self._path(batch).unlink(missing_ok=True)
        self._closed -= self._sizes.pop(batch, 0)
        self._unsynced.discard(batch)

    def take_unsynced(self) -> list[Path]:
        """The segments that were written to since the last time, for `sync`."""
        names, self._unsynced = self._unsynced, set()
        return [self._path(name) for name in names]

    # the last segment

    def _write(self, data: bytes) -> bool:
        """Append all of it or nothing."""
        try:
            if self._fd is None:
                self._last = self._name(self._next)
                self._fd = os.open(self._path(self._last), _APPEND | os.O_CREAT | os.O_EXCL, 0o640)
            self._unsynced.add(self._last)
            written = os.write(self._fd, data)
        except OSError:
            return False
        self._length += written
        if written < len(data):
            self._shorten(written)
            return False
        return True

    def _shorten(self, size: int) -> None:
        assert self._fd is not None
        self._length -= size
        os.ftruncate(self._fd, self._length)

    def _pop(self, line: bytes) -> None:
        if self.in_memory and self.in_memory[-1] is line:
            self.in_memory.pop()

    def _find_one(self) -> None:
        self.lost -= 1

    def _cut(self, path: Path, length: int) -> None:
        os.truncate(path, length)
        self._closed += length - self._sizes[path.name]
        self._sizes[path.name] = length

    def _name(self, number: int) -> str:
        return f"{number:0{DIGITS}}{SUFFIX}"

    def _path(self, name: str) -> Path:
        return self._folder / name


def sync(segments: Sequence[Path]) -> None:
    """Have those that are still there on the disk.  Blocks for as long as that takes.  Raises OSError."""
    for path in segments:
        with suppress(FileNotFoundError):
            _sync(path, os.fdatasync)
    if segments:
        _sync(segments[0].parent, os.fsync)


def _sync(path: Path, call: Callable[[int], None]) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        call(fd)
    finally:
        os.close(fd)
