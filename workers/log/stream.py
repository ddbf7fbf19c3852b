"""The output of one service on its way to its ring and to the log."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from supervisor.linux.pipe_call import PipeCall, close_end, start_read
from supervisor.log.handler import CUT, MAX_LINE, boundary, pieces, without_commands
from supervisor.log.output import PROCESS_ENDED
from supervisor.log.ring import append, is_in_line

LARGEST = 1 << 20  # maximal bytes of a pipe, unless root allows more: fs.pipe-max-size
LONGEST_LINE = 2048  # bytes; a longer line is passed on in pieces with marks
BACKLOG = 1 << 14  # waiting bytes at which the service counts as flooding and is not read
MOST_KILLED = 3  # children that may be killed until the last read counts as done
TOGETHER = 32  # lines that are offered at once if they fit into a write

Offer = Callable[[Sequence[str]], int]  # returns the number of finished lines


class Stream:
    """The stream of a service. Owns the read end `fd` of its pipe, and its `ring`.

    A child makes each read, because a process may hold the lock of the pipe. Other streams have their turn
    until `call` ends.
    """

    def __init__(self, name: str, fd: int, ring: int) -> None:
        self.name = name
        self.fd = fd
        self.ended = False  # only remaining output is read, at most `_left` bytes
        self._is_read = False  # nothing is read any more
        self.call: PipeCall | None = None
        self._is_last = False  # whether the pipe had no writer left before `call`
        self._killed = 0  # children
        self._left = LARGEST
        self._ring = ring
        self._in_line = is_in_line(ring)  # the ring's last line is incomplete
        self._held = b""  # possibly the beginning of PROCESS_ENDED
        self._rest = b""  # read but not passed on, from `_at` on
        self._at = 0
        self._continues = False  # the beginning of the line at `_at` has been passed on
        self._ready: deque[str] = deque()  # lines of the log
        self._size = 0  # characters of these lines
        # the flag belongs to this end of the pipe; services write to the other end
        os.set_blocking(fd, False)

    def read(self, size: int, patience: int = 0) -> int | None:
        """Read at most `size` bytes, so that no service delays the others.

        Returns the number of bytes, 0 if there are none now or `call` has not ended after `patience` milliseconds, or
        None at the end, when the pipe has no writer left. Raises OSError if no child can be started.
        """
        if self.call is None:
            self.call = start_read(self.fd, size, patience)
            self._is_last = self.ended
        return self.take_late() if self.call.has_ended(patience) else 0

    def take_late(self) -> int | None:
        """Take the data read by a child that has ended; returns like `read`."""
        call, self.call = self.call, None
        return self._add_result(call) if call is not None else 0

    def _add_result(self, call: PipeCall) -> int | None:
        try:
            data = call.result()
        except BlockingIOError:
            return 0
        except TimeoutError:  # the child was killed before it read any data
            self._killed += 1
            self._is_last = self._is_last and self._killed > MOST_KILLED
            return 0
        except OSError:  # a page of a file that its server has withdrawn, which blocks the pipe for good
            return None
        if not data:
            return None
        if self.ended:
            self._left -= len(data)
        *ended, last = (self._held + data).split(PROCESS_ENDED)
        if ended:
            self._take(ended[0])
            self._end_line()
        self._held = _beginning_of_mark(last)
        # taken together, as a service may write thousands of marks itself
        lines = [part if part.endswith(b"\n") else part + b"\n" for part in ended[1:] if part]
        self._take(b"".join([*lines, last[: len(last) - len(self._held)]]))
        return len(data)

    def drain(self, size: int, patience: int = 0) -> None:
        """Take all remaining data, including an incomplete line; at most LARGEST, as a process may write forever.

        Waits for children, but only `patience` milliseconds while they are blocked. If `call` has not ended
        by then, `drain` has to be called again after its end. Raises OSError if no child can be started; it has
        to be called again then, too.
        """
        self.ended = True
        limit = time.monotonic() + patience / 1000
        while self._left > 0:
            taken = self.read(size, patience)
            if self.call is not None or (not taken and self._is_last):
                break
            patience = min(patience, max(1, int((limit - time.monotonic()) * 1000)))
        if self.call is None:
            self.end()

    def end(self) -> None:
        """Take an incomplete line; afterwards, nothing is read."""
        self._take(self._held)
        self._held = b""
        self._finish()
        self.ended = self._is_read = True

    def _take(self, data: bytes) -> None:
        if data:
            append(self._ring, data)
            self._in_line = not data.endswith(b"\n")
            self._rest, self._at = self._rest[self._at :] + data, 0

    def _end_line(self) -> None:
        """End the last line at the end of the process, so that it does not continue with output of the next one."""
        if self._in_line:
            append(self._ring, b"\n")
            self._in_line = False
        self._finish()

    def _finish(self) -> None:
        if self._at < len(self._rest) and not self._rest.endswith(b"\n"):
            self._rest += b"\n"

    @property
    def floods(self) -> bool:
        """Whether more output waits than a service that does not flood writes at once."""
        return len(self._rest) - self._at >= BACKLOG

    def has_lines(self) -> bool:
        """Whether there is a line to pass on."""
        return bool(self._ready) or self._make_ready()

    def pass_on(self, offer: Offer, most: int) -> bool:
        """Offer at most `most` lines of the log; return False if one was refused, which remains the next."""
        while most > 0 and self.has_lines():
            while self._size < MAX_LINE and len(self._ready) < TOGETHER and self._make_ready():
                pass
            done = offer(list(islice(self._ready, most)))
            if not done:
                return False
            for _ in range(done):
                self._size -= len(self._ready.popleft())
            most -= done
        return True

    def _make_ready(self) -> bool:
        """Convert the next line to lines of the log; return False if there is none."""
        end = self._rest.find(b"\n", self._at)
        if end >= 0:
            self._add(self._rest[self._at : end].removesuffix(b"\r"), goes_on=False)
            self._at = end + 1
        elif len(self._rest) - self._at > LONGEST_LINE:  # the last piece of an incomplete line is kept
            end = boundary(self._rest, self._at + LONGEST_LINE)
            self._add(self._rest[self._at : end], goes_on=True)
            self._at = end
        else:
            return False
        return True

    def _add(self, line: bytes, goes_on: bool) -> None:
        text = without_commands(line.decode(errors="backslashreplace"))
        *others, last = pieces(text, LONGEST_LINE)
        begin = CUT if self._continues else ""
        for piece in others:
            self._put(f"{begin}{piece}{CUT}")
            begin = CUT
        self._put(f"{begin}{last}{CUT if goes_on else ''}")
        self._continues = goes_on

    def _put(self, text: str) -> None:
        line = f"{self.name}: {text}"
        self._ready.append(line)
        self._size += len(line)

    @property
    def is_over(self) -> bool:
        """Whether everything has been read and passed on, so that the stream is to be closed."""
        return self._is_read and self.call is None and not self.has_lines()

    def close(self) -> None:
        """Close the descriptors. Raises OSError if no child can be started; they are then still open."""
        close_end(self.fd)
        os.close(self._ring)


def _beginning_of_mark(data: bytes) -> bytes:
    """Return the end of `data` that may become PROCESS_ENDED with the next bytes."""
    at = data.rfind(PROCESS_ENDED[:1], -len(PROCESS_ENDED) + 1)
    return data[at:] if at >= 0 and PROCESS_ENDED.startswith(data[at:]) else b""
