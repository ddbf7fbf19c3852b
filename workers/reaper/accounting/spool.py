"""Rows on disk until the database has them.

A segment is a file of lines. Rows are appended to the last segment. The others are closed; each is a batch,
and is removed once the database has committed it. So whenever this process is killed, each row is in a file,
in the database or, for a moment, in both, and its key reveals the duplicate.

Rows are written before their cgroups are deleted, several at a time. If the process is killed in between, the
last rows of the last segment may describe living cgroups. Only these rows can, and they are dropped at the
next start. An incomplete write is dropped as well, because its cgroups were not deleted. A dropped row is
overwritten with spaces, so that later rows keep their place.

If the disk is full, a limited number of rows is kept in memory. If another program removes a segment, its
rows are lost, but no others.

Written rows survive the death of this process, as the kernel writes them to the disk. To protect them against
a crash of the host, the owner of the spool calls `sync` from time to time.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from supervisor.linux.place import Place
from workers.reaper.options import SpoolError

SUFFIX = ".rows"
FOLDER_MODE = 0o750
DIGITS = 16
SEGMENT = 1 << 18  # bytes at which a segment is closed: a batch of about 700 rows
MAX_IN_MEMORY = 10_000  # rows: about 5 MB
MAX_COUNTED = 64  # segments whose rows are counted at the start, within 0.1 s; those of the others are estimated
_WRITE = os.O_WRONLY | os.O_CLOEXEC  # writes at explicit offsets, which Linux ignores for O_APPEND


@dataclass(slots=True)
class _Segment:
    size: int = 0  # bytes
    rows: int = 0


class _Last(NamedTuple):
    """The lines of the last append: the number of `kept` ones, and their place `at` in the segment; None: in memory."""

    lines: Sequence[bytes]
    kept: int
    at: int | None


class Spool:
    """The spool. Owns the folder, which it locks, and the last segment. Raises SpoolError.

    `limit` is the maximum of bytes in all segments.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self.lost = 0  # rows that found no room, or whose segment was removed
        self.trouble = ""  # why the last row could not be written
        self.in_memory: list[bytes] = []
        self._folder = Path(folder)
        self._limit = limit
        self._fd: int | None = None
        self._last = ""  # name of the last segment
        self._open = _Segment()
        self._unsynced: set[str] = set()  # segments written since the last `sync`
        self._appended = _Last((), 0, None)
        try:
            self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            with Place(follows_all=True, owners=()) as place:
                self._lock = place.open(folder, os.O_RDONLY | os.O_DIRECTORY)[0]
        except OSError as error:
            raise SpoolError(f"cannot use the spool {folder!r}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._segments = _count(sorted(self._folder.glob("[0-9]" * DIGITS + SUFFIX)))
        except OSError as error:
            os.close(self._lock)
            raise SpoolError(f"cannot use the spool {folder!r}: {error.strerror}, another reaper has it") from error
        # kept up to date, to avoid adding it up for each row
        self._closed = sum(segment.size for segment in self._segments.values())
        self._next = 1 + max((int(name.removesuffix(SUFFIX)) for name in self._segments), default=0)

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return self._closed + self._open.size

    @property
    def rows(self) -> int:
        """Number of waiting rows, on disk and in memory."""
        return sum(segment.rows for segment in self._segments.values()) + self._open.rows + len(self.in_memory)

    @property
    def batches(self) -> tuple[str, ...]:
        """The closed segments, oldest first."""
        return tuple(self._segments)

    def last_lines(self, most: int) -> list[bytes]:
        """Return the last complete rows of an earlier process; an incomplete row is cut off. Raises OSError."""
        if not self._segments:
            return []
        path = self._path(self.batches[-1])
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        self._cut(path, len(whole) + 1 if whole else 0)
        return _rows(whole)[-most:]

    def drop_line(self, line: bytes) -> None:
        """Drop a row returned by `last_lines`. Raises OSError."""
        name = self.batches[-1]
        path = self._path(name)
        fd = os.open(path, _WRITE)
        try:
            _blank(fd, path.read_bytes().rindex(line + b"\n"), len(line) + 1)
        finally:
            os.close(fd)
        self._segments[name].rows -= 1

    # writing

    def append(self, lines: Sequence[bytes]) -> None:
        """Keep rows, on disk if possible."""
        if self._open.size >= SEGMENT:
            self.close_batch()
        kept = list(lines)
        while self.size + sum(map(len, kept)) > self._limit and kept:
            kept.pop()
        at = self._open.size
        if kept and self._write(b"".join(kept), len(kept)):
            self._appended = _Last(lines, len(kept), at)
        else:
            del kept[max(0, MAX_IN_MEMORY - len(self.in_memory)) :]
            self.in_memory += kept
            self._appended = _Last(lines, len(kept), None)
        self.lost += len(lines) - len(kept)

    def take_back(self, places: Sequence[int]) -> None:
        """Forget rows of the last append, by their indices.  Raises OSError."""
        lines, kept, at = self._appended
        first = len(self.in_memory) - kept
        for place in sorted(places, reverse=True):
            if place >= kept:
                self.lost -= 1
            elif at is None:
                del self.in_memory[first + place]
            else:
                assert self._fd is not None
                _blank(self._fd, at + sum(map(len, lines[:place])), len(lines[place]))
                self._open.rows -= 1

    def close_batch(self) -> None:
        """Make appended rows available as a batch, including those that could not be written so far."""
        if self.in_memory and self._write(b"".join(self.in_memory), len(self.in_memory)):
            self.in_memory = []
        if self._fd is not None:
            os.close(self._fd)
            self._segments[self._last] = self._open
            self._closed += self._open.size
            self._fd = None
            self._open = _Segment()
            self._next += 1

    def close(self) -> None:
        self.close_batch()
        os.close(self._lock)

    # reading

    def read(self, batch: str) -> list[bytes]:
        """Return the lines of a closed segment. Raises OSError."""
        return _rows(self._path(batch).read_bytes())

    def remove(self, batch: str) -> None:
        """Remove a batch that is in the database. Raises OSError."""
        self._path(batch).unlink(missing_ok=True)
        self._drop(batch)

    def lose(self, batch: str) -> int:
        """Count the rows of a segment that another program removed as lost; return their number."""
        rows = self._drop(batch)
        self.lost += rows
        return rows

    def take_unsynced(self) -> list[Path]:
        """Return the segments written since the last call, for `sync`."""
        names, self._unsynced = self._unsynced, set()
        return [self._path(name) for name in names]

    # the last segment

    def _write(self, data: bytes, rows: int) -> bool:
        """Append all data or nothing."""
        try:
            if self._fd is None:
                self._last = self._name(self._next)
                self._fd = os.open(self._path(self._last), _WRITE | os.O_CREAT | os.O_EXCL, 0o640)
            self._unsynced.add(self._last)
            written = os.pwrite(self._fd, data, self._open.size)
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return False
        self._open.size += written
        self._open.rows += rows
        if written < len(data):
            self._shorten(written, rows)
            self.trouble = os.strerror(errno.ENOSPC)
            return False
        self.trouble = ""
        return True

    def _shorten(self, size: int, rows: int) -> None:
        assert self._fd is not None
        self._open.size -= size
        self._open.rows -= rows
        os.ftruncate(self._fd, self._open.size)

    def _drop(self, batch: str) -> int:
        segment = self._segments.pop(batch, _Segment())
        self._closed -= segment.size
        self._unsynced.discard(batch)
        return segment.rows

    def _cut(self, path: Path, length: int) -> None:
        os.truncate(path, length)
        self._closed += length - self._segments[path.name].size
        self._segments[path.name] = _Segment(length, len(_rows(path.read_bytes())))

    def _name(self, number: int) -> str:
        return f"{number:0{DIGITS}}{SUFFIX}"

    def _path(self, name: str) -> Path:
        return self._folder / name


def _rows(data: bytes) -> list[bytes]:
    """Return the lines without dropped ones."""
    return [line for line in data.splitlines() if not line.isspace()]


def _blank(fd: int, at: int, size: int) -> None:
    """Overwrite a line with spaces. Raises OSError."""
    os.pwrite(fd, b" " * (size - 1) + b"\n", at)


def _count(paths: Sequence[Path]) -> dict[str, _Segment]:
    """Return the segments of earlier processes by name. Raises OSError."""
    segments = {path.name: _Segment(path.stat().st_size) for path in paths}
    size = rows = 0
    for path in paths[-MAX_COUNTED:]:
        segment = segments[path.name]
        segment.rows = len(_rows(path.read_bytes()))
        size += segment.size
        rows += segment.rows
    for path in paths[:-MAX_COUNTED]:
        segments[path.name].rows = segments[path.name].size * rows // max(1, size)
    return segments


def sync(segments: Sequence[Path]) -> None:
    """Flush the remaining segments to the disk. Blocks until that is done. Raises OSError."""
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
