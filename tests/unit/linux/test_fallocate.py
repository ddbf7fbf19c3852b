from __future__ import annotations

import errno
import os

import pytest

from supervisor.linux.fallocate import punch_hole


def test_a_hole_reads_as_zeros_and_takes_no_room() -> None:
    fd = os.memfd_create("x")
    try:
        os.write(fd, b"x" * 100_000)
        before = os.fstat(fd)
        punch_hole(fd, 10, 90_000)
        after = os.fstat(fd)
        assert after.st_size == before.st_size
        assert after.st_blocks < before.st_blocks
        assert os.pread(fd, 90_020, 0) == b"x" * 10 + bytes(90_000) + b"x" * 10
    finally:
        os.close(fd)


def test_a_hole_has_a_length() -> None:
    fd = os.memfd_create("x")
    try:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            punch_hole(fd, 0, 0)
        assert caught.value.errno == errno.EINVAL
    finally:
        os.close(fd)
