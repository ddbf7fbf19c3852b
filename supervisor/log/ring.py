"""The last 64 KiB of a service's output, in a memfd that spawnd owns and the log worker writes.

It outlives both the worker, who goes on in it, and the service.  Layout, native endian: three
u64, then the data, each byte at its number modulo the size.  The first says up to which
byte number data may have been overwritten, the second up to which it has been written: the
one is set before, the other after, so a reader knows what may be torn.  The third is the
number of newlines in all that has been written, so a reader knows how many it has missed.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

SIZE = 64 * 1024
MAX_NAME = 249  # bytes of a memfd's name
_HEADER = struct.Struct("=QQQ")
_READS = 8  # of the header, until two are equal: a write of it is not seen as one where it is at the wrong moment


@dataclass(frozen=True, slots=True)
class Position:
    """A place in all that was ever written: how many bytes, and how many newlines, come before it."""

    byte: int = 0
    line: int = 0


START = Position()


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes written between two positions, the later of which is `end`; `lost` lines before it are gone.

    `cut`: it begins within a line that is longer than what is kept.
    """

    data: bytes
    lost: int
    end: Position
    cut: bool = False


def make_ring(name: str) -> int:
    """A new empty ring; the caller owns the descriptor."""
    fd = os.memfd_create(f"log-{name}".encode()[:MAX_NAME].decode(errors="ignore"), os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, _HEADER.size + SIZE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def append(fd: int, data: bytes) -> None:
    """Write at the end of the ring, over what is oldest."""
    reserved, begin, lines = _counts(fd)
    end = begin + len(data)
    # a writer that was killed may have overwritten more than this one will
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
    """The bytes written since `position`, or those that are left: then from the beginning of a line.

    Of a line that is longer than the ring it is the end.
    """
    _, end, lines = _counts(fd)
    if position.byte > end:
        position = START  # of another ring, in whose place this one is
    if position.byte == end:
        return Piece(b"", 0, position)
    data = os.pread(fd, SIZE, _HEADER.size)
    reserved, _, _ = _counts(fd)
    oldest = max(0, reserved - SIZE)  # what is older may be overwritten already
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
    """Whether the last line has no end yet."""
    end = _counts(fd)[1]
    return end > 0 and os.pread(fd, 1, _HEADER.size + (end - 1) % SIZE) != b"\n"


def _begins(data: bytes) -> int:
    """Where its first UTF-8 character begins; 0 in what is not UTF-8."""
    return next((at for at, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)


def _counts(fd: int) -> tuple[int, int, int]:
    header, again = b"", os.pread(fd, _HEADER.size, 0)
    for _ in range(_READS):
        if header == again:
            break
        header, again = again, os.pread(fd, _HEADER.size, 0)
    reserved, written, lines = _HEADER.unpack(again)
    return reserved, written, lines
