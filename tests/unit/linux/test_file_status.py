from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from supervisor.linux.file_status import PROC_SUPER_MAGIC, SYSFS_MAGIC, birth_time, file_system_of, is_proc


def test_the_type_of_a_file_system(tmp_path: Path) -> None:
    found = {}
    for folder in ("/proc", "/sys", str(tmp_path)):
        fd = os.open(folder, os.O_PATH)
        found[folder] = file_system_of(fd), is_proc(fd)
        os.close(fd)
    own = found.pop(str(tmp_path))
    assert found == {"/proc": (PROC_SUPER_MAGIC, True), "/sys": (SYSFS_MAGIC, False)}
    assert own not in found.values()


def test_no_descriptor() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        file_system_of(-1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        birth_time(-1)


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
