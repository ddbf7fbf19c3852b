from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from supervisor.linux.statx import birth_time


def test_the_time_that_a_file_was_made_is_not_that_of_its_change(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    try:
        made = birth_time(fd)
        if made is None:
            pytest.skip("needs a file system that knows when a file was made")
        assert abs(made - time.time()) < 60
        os.utime(fd, (1, 1))
        os.write(fd, b"more")
        assert birth_time(fd) == made
    finally:
        os.close(fd)


def test_a_file_system_that_does_not_know_it() -> None:
    fd = os.open("/proc/self", os.O_RDONLY)
    try:
        assert birth_time(fd) is None
    finally:
        os.close(fd)


def test_no_descriptor() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        birth_time(-1)
