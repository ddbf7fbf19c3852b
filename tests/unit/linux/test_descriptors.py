from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from supervisor.linux import descriptors
from supervisor.linux.descriptors import (
    CLOSE_RANGE_CLOEXEC,
    LAST_DESCRIPTOR,
    Order,
    close_range,
    kcmp_files,
    pidfd_getfd,
    punch_hole,
)
from tests.unit.process.forked import in_child, open_numbers


def test_close_range_closes_both_ends() -> None:
    def close_some() -> tuple[set[int], set[int]]:
        for number in range(100, 106):
            os.dup2(0, number)
        before = open_numbers()
        close_range(101, 104)
        return before, open_numbers()

    before, after = in_child(close_some)
    assert before - after == {101, 102, 103, 104}


def test_close_range_to_the_last() -> None:
    def close_all_above() -> int:
        os.dup2(0, 5000)
        highest = max(open_numbers())
        close_range(4000, LAST_DESCRIPTOR)
        assert highest == 5000
        return max(open_numbers())

    assert in_child(close_all_above) < 4000


def test_close_range_can_mark_instead() -> None:
    def mark() -> tuple[bool, bool]:
        os.dup2(0, 200)
        before = os.get_inheritable(200)
        close_range(200, 300, CLOSE_RANGE_CLOEXEC)
        return before, os.get_inheritable(200)

    assert in_child(mark) == (True, False)


def test_close_range_refuses_a_range_upside_down() -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        close_range(10, 9)
    assert caught.value.errno == errno.EINVAL


def test_pidfd_getfd_duplicates_close_on_exec() -> None:
    read_end, write_end = os.pipe()
    pidfd = os.pidfd_open(os.getpid())
    try:
        copy = pidfd_getfd(pidfd, write_end)
        assert not os.get_inheritable(copy)
        os.write(copy, b"x")
        os.close(copy)
        assert os.read(read_end, 10) == b"x"
        with pytest.raises(OSError, match="Bad file descriptor"):
            pidfd_getfd(pidfd, 9999)
    finally:
        for fd in (read_end, write_end, pidfd):
            os.close(fd)


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


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without the call."""

    def missing(*_args: int) -> int:
        ctypes.set_errno(errno.ENOSYS)
        return -1

    monkeypatch.setattr(descriptors, "_kcmp", missing)


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
