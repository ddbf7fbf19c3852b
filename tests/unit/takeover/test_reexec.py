"""The steps around an exec of spawnd."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from supervisor.process.fork import fork
from supervisor.takeover.reexec import _hold
from tests import fuse
from tests.unit.waiting import wait_exit, wait_readable


@pytest.mark.skipif(not fuse.is_possible(), reason="needs root and /dev/fuse")
def test_a_file_whose_server_hangs_keeps_no_other_descriptor_open() -> None:
    """The child that has a copy of all over the exec closes sockets and pipes first."""
    hold_read, hold_write = os.pipe()
    last = os.dup(hold_write)
    read_end, write_end = os.pipe()
    with fuse.unanswering(fuse.FLUSH) as path:
        file = os.open(path, os.O_RDONLY)

        def hold() -> None:
            os.close(hold_write)
            _hold(hold_read, last, [file, write_end])

        pid = fork(hold)
        for fd in (hold_write, last, write_end, hold_read):
            os.close(fd)
        wait_readable(read_end)
        assert os.read(read_end, 1) == b""
    assert wait_exit(pid) == 0
    with suppress(OSError):  # its server has ended
        os.close(file)
    os.close(read_end)
