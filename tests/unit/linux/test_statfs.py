from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.linux.statfs import PROC_SUPER_MAGIC, SYSFS_MAGIC, file_system_of, is_proc


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
