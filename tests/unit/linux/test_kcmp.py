"""kcmp(2): whether two descriptors are one open file."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from supervisor.linux import kcmp
from supervisor.linux.kcmp import kcmp_file


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without the call."""

    def missing(*_args: int) -> int:
        ctypes.set_errno(errno.ENOSYS)
        return -1

    monkeypatch.setattr(kcmp, "_syscall", missing)


def test_a_duplicate_is_the_same_open_file() -> None:
    with open("/dev/null") as file:
        duplicate = os.dup(file.fileno())
        try:
            assert kcmp_file(file.fileno(), duplicate)
        finally:
            os.close(duplicate)


def test_a_file_opened_twice_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open() as one, path.open() as other:
        assert not kcmp_file(one.fileno(), other.fileno())


@pytest.mark.usefixtures("without")
def test_on_a_kernel_without_it_nothing_is_known_to_be_the_same() -> None:
    assert not kcmp_file(0, 0)


def test_the_ends_of_a_pipe_are_two() -> None:
    read_end, write_end = os.pipe()
    try:
        assert not kcmp_file(read_end, write_end)
        assert kcmp_file(read_end, read_end)
    finally:
        os.close(read_end)
        os.close(write_end)
