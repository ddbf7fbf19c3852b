"""Running a piece of a test in a forked process, where it may change users, limits and descriptors."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from supervisor.errors import StepError

T = TypeVar("T")


def in_child(function: Callable[[], T]) -> T:
    """The result of `function`, called in a process of its own; what it raises fails the test here."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            data = pickle.dumps((function(), ""))
        except BaseException:
            data = pickle.dumps((None, traceback.format_exc()))
        os.write(write_end, data)
        os._exit(0)
    os.close(write_end)
    data = read_all(read_end)
    os.waitpid(pid, 0)
    assert data, "the child died without a word"
    result, error = pickle.loads(data)  # noqa: S301  # from our own child
    assert not error, error
    return result  # type: ignore[no-any-return]


def step_error(function: Callable[[], object]) -> tuple[str, str, int]:
    """Step, path and errno of the StepError that `function` raises."""
    try:
        function()
    except StepError as error:
        return error.step, error.path, error.errno
    raise AssertionError("no StepError")


def read_all(fd: int) -> bytes:
    """Everything up to the end of a pipe, which is closed then."""
    data = b""
    with suppress(ConnectionResetError):  # of a socket whose other end had not read all
        while chunk := os.read(fd, 65536):
            data += chunk
    os.close(fd)
    return data


def open_numbers() -> set[int]:
    """The descriptors that this process has open."""
    numbers = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the one of the listing itself
        numbers.add(int(name))
    return numbers
