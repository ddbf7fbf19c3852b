"""A terminal with somebody at it: a program in a session of its own, typed at and read through a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from tests.daemon import PATIENCE, descendants, wait_until


class Screen:
    """Runs `command` on a terminal of `rows` and `columns`; as a context manager, kills what is left of it."""

    def __init__(self, command: Sequence[str], rows: int = 24, columns: int = 80, **environment: str) -> None:
        self.seen = ""
        self._status: int | None = None
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            try:
                size = ("COLUMNS", "LINES")  # they would count rather than the terminal's
                inherited = {name: value for name, value in os.environ.items() if name not in size}
                os.execvpe(command[0], list(command), inherited | {"TERM": "dumb"} | environment)  # noqa: S606
            finally:
                os._exit(127)
        self.set_size(rows, columns)

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = [self.pid, *descendants(self.pid)] if self._status is None else []
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if left:
            os.waitpid(self.pid, 0)
        self.hang_up()

    def hang_up(self) -> None:
        """Close the terminal.  More than once does no harm; nothing can be read or typed any more."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._master)

    @property
    def is_raw(self) -> bool:
        return not self.modes[3] & termios.ICANON

    @property
    def foreground(self) -> int:
        """The process group in the foreground."""
        return os.tcgetpgrp(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read_until(self, text: str, patience: float = PATIENCE) -> str:
        """Return the output up to `text`, and take both out."""
        end = time.monotonic() + patience
        while text not in self.seen:
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"no {text!r} in {self.seen!r}")
        before, _, self.seen = self.seen.partition(text)
        return before

    def wait(self) -> int:
        """Its exit status, negative for the signal that ended it; what it wrote until then is in `seen`."""
        wait_until(self._has_ended, "its end")
        while self._read(0):
            pass
        assert self._status is not None
        return self._status

    def _has_ended(self) -> bool:
        self._read(0)  # or it would wait for room
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status is not None

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, seconds))[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # nobody has the terminal open any more
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)
