"""The last 64 KiB of a service's output, in a memfd that spawnd owns and the log worker writes.

It outlives both the worker, whose successor continues it, and the service. Layout in native byte order: three
u64, then the data, each byte at its number modulo the size. The first u64 is the byte number up to which data
may have been overwritten, and is set before a write. The second is the number up to which data has been
written, and is set after a write. So a reader can tell which data may be torn. The third is the number of
newlines written so far, so a reader can tell how many it has missed.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

SIZE = 64 * 1024
MAX_NAME = 249  # bytes of a memfd's name
_HEADER = struct.Struct("=QQQ")
_READS = 8  # of the header, until two are equal, because a write of it may be seen in part


class Position(NamedTuple):
    """A place in all output ever written: the number of bytes and of newlines before it."""

    byte: int = 0
    line: int = 0


START = Position()


class Piece(NamedTuple):
    """The bytes written between two positions, of which `end` is the later; `lost` lines before them are gone.

    `cut`: it begins within a line that is longer than the kept data.
    """

    data: bytes
    lost: int
    end: Position
    cut: bool = False


def make_ring(name: str) -> int:
    """Return a new, empty ring; the caller owns the descriptor."""
    fd = os.memfd_create(f"log-{name}".encode()[:MAX_NAME].decode(errors="ignore"), os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, _HEADER.size + SIZE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def append(fd: int, data: bytes) -> None:
    """Append data to the ring, over the oldest data."""
    reserved, begin, lines = _counts(fd)
    end = begin + len(data)
    # a killed writer may have overwritten more than this one will
    reserved = max(reserved, end)
    os.pwrite(fd, _HEADER.pack(reserved, begin, lines), 0)
    kept = data[-SIZE:]
    at = (end - len(kept)) % SIZE
    first = kept[: SIZE - at]
    os.pwrite(fd, first, _HEADER.size + at)
    if len(first) < len(kept):
        os.pwrite(fd, kept[len(first) :], _HEADER.size)
    os.pwrite(fd, _HEADER.pack(reserved, end, lines + data.count(b"\n")), 0)


def since(fd: int, position: Position = START) -> Piece:
    """Return the bytes written since `position`, or those still kept, from the beginning of a line.

    For a line longer than the ring, the piece is the end of the line.
    """
    _, end, lines = _counts(fd)
    if position.byte > end:
        position = START  # a position in another ring, which this one has replaced
    if position.byte == end:
        return Piece(b"", 0, position)
    data = os.pread(fd, SIZE, _HEADER.size)
    reserved, _, _ = _counts(fd)
    oldest = max(0, reserved - SIZE)  # older data may be overwritten already
    if oldest >= end:
        return Piece(b"", 0, position)
    at = end % SIZE
    kept = (data[at:] + data[:at])[max(oldest, position.byte) - end :]
    if position.byte >= oldest:
        return Piece(kept, 0, Position(end, lines))
    first = kept.find(b"\n") + 1
    is_cut = first in (0, len(kept))
    kept = kept[_begins(kept) if is_cut else first :]
    return Piece(kept, max(0, lines - position.line - kept.count(b"\n")), Position(end, lines), is_cut)


def is_in_line(fd: int) -> bool:
    """Whether the last line is incomplete."""
    end = _counts(fd)[1]
    return end > 0 and os.pread(fd, 1, _HEADER.size + (end - 1) % SIZE) != b"\n"


def _begins(data: bytes) -> int:
    """Return where the first UTF-8 character begins; 0 for other data."""
    return next((at for at, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)


def _counts(fd: int) -> tuple[int, int, int]:
    header, again = b"", os.pread(fd, _HEADER.size, 0)
    for _ in range(_READS):
        if header == again:
            break
        header, again = again, os.pread(fd, _HEADER.size, 0)
    reserved, written, lines = _HEADER.unpack(again)
    return reserved, written, lines
