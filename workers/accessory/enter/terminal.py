"""The caller's terminal, and the pseudo-terminal that the command gets in its place.

A command with the caller's terminal could read later input from it, and inject input (TIOCSTI). So could any
process that may trace the command.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from supervisor.loop.loop import Loop

STANDARD = (0, 1, 2)
SIZE = 4096  # bytes per copy
OPOST = termios.OPOST
CC = 6  # index of the control characters in the result of tcgetattr


class Terminal:
    """The terminal among our standard descriptors.

    `stand_ins` are the descriptors of 0 to 2 that are a terminal. `has_input`: the command gets the keys, as
    its standard input is the terminal. `asks`: it gets them only once it reads, or sets modes, because its
    output goes to another program, which may want keys as well (`… | less`). The command's output is written
    to `output`. `begun` is at its end when the command runs. Owns these, the master of the pseudo-terminal
    and, until `close_theirs`, the child's descriptors: the slave, and the end of a pipe that closes when the
    command is executed.
    """

    def __init__(self, stand_ins: list[int]) -> None:
        """Open a pseudo-terminal. Raises OSError if there is none."""
        self.stand_ins = stand_ins
        self.has_input = 0 in stand_ins
        self.asks = self.has_input and 1 not in stand_ins
        self._has_all_output = self.has_input and not self.asks
        self._fd = stand_ins[0]
        self._before: list[Any] | None = None  # its modes before it became raw
        self._raw: list[Any] | None = None
        self.output = _open_output(stand_ins)
        self.master, self.slave = os.openpty()
        self.begun, self.begins = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.master, False)
        self._take_modes()
        self.follow_size()

    def _take_modes(self) -> None:
        with suppress(termios.error):
            modes = termios.tcgetattr(self._fd)
            if not self._has_all_output:
                modes[1] &= ~OPOST  # the terminal itself does that
            termios.tcsetattr(self.slave, termios.TCSANOW, modes)

    def give_to(self, uid: int) -> None:
        """Give the slave to the command's user, because programs open it by its path."""
        with suppress(PermissionError):  # a user who may map foreign ids still cannot give files to them
            os.fchown(self.slave, uid, -1)

    def close_theirs(self) -> None:
        os.close(self.slave)
        os.close(self.begins)

    def follow_size(self) -> None:
        """Adopt the size of the terminal; the kernel notifies the command's foreground processes."""
        with suppress(OSError):
            size = fcntl.ioctl(self._fd, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def is_ours(self) -> bool:
        """Whether this process is in the terminal's foreground; otherwise others read from it and set its modes.

        A terminal of another session has no foreground for us.
        """
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError as error:
            return error.errno == errno.ENOTTY

    def has_asked(self, leader: int) -> bool:
        """Whether the command is in the foreground of its terminal, in place of its session's leader."""
        return os.tcgetpgrp(self.master) not in {0, leader}  # 0: no process is, as after the end of the leader

    @property
    def is_raw(self) -> bool:
        return self._before is not None

    def is_gone(self) -> bool:
        """Whether the terminal has hung up."""
        try:
            termios.tcgetattr(self._fd)
        except termios.error as error:
            return bool(error.args[0] == errno.EIO)
        return False

    def has_stop_key(self, typed: bytes) -> bool:
        """Whether the input contains the key that would stop the job if the terminal were not raw."""
        return self._before is not None and self._before[CC][termios.VSUSP] in typed

    def make_raw(self) -> None:
        """Pass on every key as it is typed, and remember the previous modes, including modes set meanwhile."""
        with suppress(termios.error):
            modes = termios.tcgetattr(self._fd)
            if modes != self._raw:
                self._before = modes
                tty.setraw(self._fd, termios.TCSANOW)
                self._raw = termios.tcgetattr(self._fd)
                if not self._has_all_output:
                    self._raw[1] |= modes[1] & OPOST
                    termios.tcsetattr(self._fd, termios.TCSANOW, self._raw)

    def restore(self) -> None:
        """Restore the modes from before `make_raw`. Idempotent.

        At once: waiting for output would last as long as it is stopped (^S), and keys typed ahead are for the shell.
        """
        before, self._before, self._raw = self._before, None, None
        if before is not None and self.is_ours():
            with suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSANOW, before)


def find_terminal() -> Terminal | None:
    """Return the terminal for which the command gets another one; None without one. Raises OSError."""
    stand_ins = [fd for fd in STANDARD if os.isatty(fd)]
    return Terminal(stand_ins) if stand_ins else None


def become_terminal(slave: int, stand_ins: list[int]) -> None:
    """Make the slave the controlling terminal and these descriptors, in the leader of a new session."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in stand_ins:
        os.dup2(slave, fd, inheritable=True)


def _open_output(stand_ins: list[int]) -> int:
    """Open the terminal anew: O_NONBLOCK belongs to the open file, which other processes share."""
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    for fd in sorted(stand_ins, key=lambda fd: fd == 0):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{fd}", flags)
    # the terminal is another user's, as after su(1), so writes may block
    return os.dup(stand_ins[-1])


class Copy:
    """Copying from the descriptor `source` to `target`; the caller owns both.

    It reads again only when everything is written. `ended()` is called at the end of the input, or when the
    other end of the output is closed; `seen(data)` is called with all input.
    """

    def __init__(
        self,
        loop: Loop,
        source: int,
        target: int,
        ended: Callable[[], None],
        seen: Callable[[bytes], None] = lambda _data: None,
    ) -> None:
        self._loop = loop
        self._source = source
        self._target = target
        self._ended = ended
        self._seen = seen
        self._left = b""
        self._watched = -1
        self._runs = False

    def start(self) -> None:
        """Copy from now on. Idempotent."""
        self._runs = True
        self._watch()

    def stop(self) -> None:
        """Read and write nothing; a later `start` writes input that was read before. Idempotent."""
        self._runs = False
        self._watch()

    def finish(self, seconds: float, most: int) -> None:
        """Copy the present input and stop, within `seconds` and about `most` bytes: others may go on writing."""
        self.stop()
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._target, select.POLLOUT)
        try:
            while self._left or (most > 0 and self._read()):
                if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                    return
                most -= self._write()
        except OSError:  # the other end is gone
            return

    def _watch(self) -> None:
        wanted = -1 if not self._runs else self._target if self._left else self._source
        if wanted == self._watched:
            return
        if self._watched >= 0:
            self._loop.unwatch(self._watched)
        self._watched = wanted
        if wanted >= 0:
            self._loop.watch(wanted, select.EPOLLOUT if self._left else select.EPOLLIN, self._go_on)

    def _go_on(self, _events: int) -> None:
        try:
            if self._left or self._read():
                self._write()
        except OSError:
            self.stop()
            self._ended()
            return
        self._watch()

    def _read(self) -> bool:
        """Read the present input; return whether there is any. Raises OSError at the end."""
        try:
            self._left = os.read(self._source, SIZE)
        except BlockingIOError:
            return False
        if not self._left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # like a terminal
        self._seen(self._left)
        return True

    def _write(self) -> int:
        """Write as much as there is room for; return the number of bytes."""
        try:
            written = os.write(self._target, self._left)
        except BlockingIOError:
            return 0
        self._left = self._left[written:]
        return written
