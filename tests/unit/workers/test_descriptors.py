"""Descriptors by name, as a worker finds them."""

from __future__ import annotations

import errno
import os

import pytest

from supervisor.manager.worker import options_file
from supervisor.notify import service_side as notify_passed
from supervisor.notify.service_side import FIRST
from tests.unit.process.forked import in_child, open_numbers
from workers.runtime.start import passed_descriptors, read_options

Found = tuple[dict[str, list[int]], list[str], list[bool]]


def passed(pid: int | None, count: str, names: str) -> Found:
    """Return the descriptors of a process that got `count`, its environment then, and whether they are inherited."""

    def find() -> Found:
        for fd in range(FIRST, FIRST + 3):
            os.dup2(0, fd)
        listen_pid = os.getpid() if pid is None else pid
        os.environ.update(LISTEN_PID=str(listen_pid), LISTEN_FDS=count, LISTEN_FDNAMES=names)
        found = passed_descriptors()
        left = [name for name in os.environ if name.startswith("LISTEN_")]
        return found, left, [os.get_inheritable(fd) for fd in range(FIRST, FIRST + 3)]

    return in_child(find)


def test_they_are_found_by_name_in_their_order() -> None:
    found, left, inherited = passed(None, "3", "a:b:a")
    assert found == {"a": [3, 5], "b": [4]}
    assert left == []
    assert inherited == [False, False, False]


def test_those_of_another_process_are_not_ours() -> None:
    found, left, inherited = passed(1, "3", "a:b:a")
    assert found == {}
    assert left == []
    assert inherited == [True, True, True]


def test_none_is_inherited_on_a_kernel_that_knows_no_flag_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(first: int, last: int, flags: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(notify_passed, "close_range", refuse)
    assert passed(None, "2", "a:b")[2] == [False, False, True]


def test_only_as_many_as_were_given() -> None:
    assert passed(None, "1", "a:b:c")[0] == {"a": [3]}
    assert passed(None, "0", "")[0] == {}


def test_without_any_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    assert passed_descriptors() == {}


def test_options_come_as_they_were_defined() -> None:
    before = open_numbers()
    options = {"allow": {"root": "any", "@\u00e4": ["1-5"]}, "limit": 3, "on": True, "large": "x" * 300_000}
    fd = options_file(options)
    os.lseek(fd, 7, os.SEEK_SET)
    assert read_options(fd) == options
    assert open_numbers() == before
