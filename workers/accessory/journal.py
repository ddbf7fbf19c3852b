"""The log of names: a memfd that outlives this process in spawnd's descriptor store.

It is appended to before anything is answered.  Layout: a header of a magic and a u64, the
offset where the log begins, then lines.  A log that has grown is written anew behind its
own end, then the one u64 is changed, then what was before it is given back to the kernel: whenever this
process may be killed, one of the two is whole.  A last line without its end was never written.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from supervisor.linux.fallocate import punch_hole

_HEADER = struct.Struct("=8sQ")
_MAGIC = b"names 1\n"
ROOM = 1 << 18  # bytes that it may grow by in any case
PIECE = 256  # lines that are in memory at once: what thousands of them need there would stay ours
FACTOR = 4  # times its length when it was written anew that it may grow to


class Journal:
    """Owns `fd`."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self.fd = fd
        self._start = start
        self._end = end
        self._limit = end

    @classmethod
    def create(cls) -> Journal:
        """An empty one.  Raises OSError."""
        fd = os.memfd_create("names", os.MFD_CLOEXEC)
        try:
            os.pwrite(fd, _HEADER.pack(_MAGIC, _HEADER.size), 0)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, _HEADER.size, _HEADER.size)

    @classmethod
    def resume(cls, fd: int) -> tuple[Journal, Iterator[bytes]]:
        """Go on with one that an earlier process has left, and its lines; takes `fd` over.  Raises ValueError."""
        header = os.pread(fd, _HEADER.size, 0)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise ValueError("it is no log of names")
        _magic, start = _HEADER.unpack(header)
        data = _read_from(fd, start)
        whole = data.rfind(b"\n") + 1
        os.ftruncate(fd, start + whole)
        return cls(fd, start, start + whole), (line[:-1] for line in io.BytesIO(data[:whole]))

    def append(self, lines: bytes) -> None:
        """Write whole lines.  Raises OSError, and then nothing was written."""
        self._append([lines])

    @property
    def is_long(self) -> bool:
        """Whether it is time for `replace`."""
        return self._end > self._limit

    def replace(self, lines: Iterable[bytes]) -> None:
        """Have these lines and no others.  Raises OSError, and then it is as before."""
        start = self._end
        self._append(_pieces(lines))
        os.pwrite(self.fd, _HEADER.pack(_MAGIC, start), 0)
        self._start = start
        size = self._end - start
        self._limit = start + max(FACTOR * size, size + ROOM)
        if start > _HEADER.size:
            punch_hole(self.fd, _HEADER.size, start - _HEADER.size)

    def close(self) -> None:
        os.close(self.fd)

    def _append(self, pieces: Iterable[bytes]) -> None:
        at = self._end
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    written = os.pwrite(self.fd, rest, at)
                    rest, at = rest[written:], at + written
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.fd, self._end)
            raise
        self._end = at


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    left = iter(lines)
    while some := list(islice(left, PIECE)):
        yield b"".join(some)


def _read_from(fd: int, start: int) -> bytes:
    pieces = []
    while piece := os.pread(fd, 1 << 20, start):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)
