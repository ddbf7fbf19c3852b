from __future__ import annotations

import errno
import os

import pytest

from supervisor.linux.descriptors import CLOSE_RANGE_CLOEXEC, LAST_DESCRIPTOR, close_range, pidfd_getfd
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
