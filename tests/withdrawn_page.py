"""A pipe whose readers wait for a FUSE server: what is in it is a page that the server has withdrawn."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests import fuse

PATIENCE = 60.0  # seconds
WAITS = "fuse", "folio_lock"  # in the stack of a process that has asked for the page


@contextmanager
def held(write_end: int) -> Iterator[None]:
    """While the page is in the pipe, whoever reads waits: a child, which is reaped at the end, has asked for it.

    The server ends then, and each read of the pipe is an error.
    """
    with fuse.unanswering(fuse.READ, once=True) as path:
        with open(path, "r+b", buffering=0) as file:
            assert os.pread(file.fileno(), 1, 0)
            assert os.splice(file.fileno(), write_end, fuse.PAGE, offset_src=0) == fuse.PAGE
            with suppress(OSError):  # an error of a write takes the page out of date
                os.pwrite(file.fileno(), bytes(fuse.PAGE), 0)
            pid = os.fork()
            if pid == 0:
                try:
                    os.close(write_end)
                    os.pread(file.fileno(), 1, 0)
                finally:
                    os._exit(0)
        _wait_asked(pid)
        yield
    os.waitpid(pid, 0)


def _wait_asked(pid: int) -> None:
    end = time.monotonic() + PATIENCE
    while not any(name in _stack(pid) for name in WAITS):
        assert time.monotonic() < end, "it does not wait for the page"
        time.sleep(0.001)


def _stack(pid: int) -> str:
    with open(f"/proc/{pid}/stack", encoding="ascii") as stack:
        return stack.read()
