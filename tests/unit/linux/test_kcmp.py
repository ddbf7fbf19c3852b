"""kcmp(2): whether two descriptors are one open file."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from supervisor.linux import kcmp
from supervisor.linux.kcmp import Order, kcmp_files


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
            assert kcmp_files(file.fileno(), duplicate) is Order.EQUAL
        finally:
            os.close(duplicate)


def test_a_file_opened_twice_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open() as one, path.open() as other:
        orders = {kcmp_files(one.fileno(), other.fileno()), kcmp_files(other.fileno(), one.fileno())}
        assert orders == {Order.LESS, Order.GREATER}


@pytest.mark.usefixtures("without")
def test_on_a_kernel_without_it_nothing_is_known_to_be_the_same() -> None:
    assert kcmp_files(0, 0) is Order.UNKNOWN


def test_the_ends_of_a_pipe_are_two() -> None:
    read_end, write_end = os.pipe()
    try:
        assert kcmp_files(read_end, write_end) is not Order.EQUAL
        assert kcmp_files(read_end, read_end) is Order.EQUAL
    finally:
        os.close(read_end)
        os.close(write_end)
