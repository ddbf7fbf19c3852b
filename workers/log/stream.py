"""The output of one service on its way to its ring and to the log."""

from __future__ import annotations

import os

from supervisor.log.logger import log
from supervisor.log.ring import append

LARGEST = 1 << 20  # bytes of a pipe at most, unless root sets more: fs.pipe-max-size
LONGEST_LINE = 2048  # bytes; a longer one is passed on in pieces


class Stream:
    """Owns the reading end `fd` of the service's pipe and its `ring`."""

    def __init__(self, name: str, fd: int, ring: int) -> None:
        self.name = name
        self.fd = fd
        self._ring = ring
        self._rest = b""
        # the flag is the pipe end's own: services write through the other end
        os.set_blocking(fd, False)

    def read(self, size: int) -> int | None:
        """Take what is there, at most `size` bytes, so that no service keeps the others waiting.

        Returns the number of bytes, 0 where there are none now, None at the end: nobody
        can write to it any more.
        """
        try:
            data = os.read(self.fd, size)
        except BlockingIOError:
            return 0
        if not data:
            return None
        append(self._ring, data)
        self._pass_on(data)
        return len(data)

    def drain(self, size: int) -> None:
        """Take all that is there, and a line that has no end yet; at most LARGEST, as somebody may write for ever."""
        left = LARGEST
        while left > 0 and (taken := self.read(size)):
            left -= taken
        if self._rest:
            self._pass_on(b"\n")

    def _pass_on(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        # what has no end yet keeps its last piece for itself, a line that has one goes on whole
        kept = max(0, len(rest) - 1) // LONGEST_LINE * LONGEST_LINE
        self._rest = rest[kept:]
        for line in (*lines, rest[:kept]) if kept else lines:
            for at in range(0, max(1, len(line)), LONGEST_LINE):
                log.info("%s: %s", self.name, line[at : at + LONGEST_LINE].decode(errors="backslashreplace"))

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._ring)
