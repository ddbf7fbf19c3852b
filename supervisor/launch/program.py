"""The program `launch`, started by `start.c`, and the same for forked children, `forked.c`, which document the details.

spawnd opens it and `acceptor` once, so that the versions of the plan's writer and of its executors always match.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Collection, Iterator, Mapping, Set
from errno import ENOEXEC
from itertools import takewhile
from typing import NamedTuple

from supervisor.launch import ACCEPTOR, PATH

BLOCK = 103  # reserved numbers at most, as in start.c
OWN = 2  # those for the plan and for the socket on which a child reports
NO_PROGRAM = 0x10000  # as in start.c

_library = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "libstart.so"))
_start_launch = _library.start_launch
_start_launch.argtypes = (
    *(ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int),
    *(ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_int),
)
_find_sockets = _library.find_sockets
_find_sockets.argtypes = (ctypes.c_void_p, ctypes.c_uint)
_find_sockets.restype = ctypes.c_uint
_reserve_block = _library.reserve_block
_reserve_block.argtypes = (ctypes.c_int, ctypes.POINTER(ctypes.c_int))
_carry_out_forked = _library.carry_out_forked
_carry_out_forked.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int))
_carry_out_forked.restype = ctypes.POINTER(ctypes.c_char_p)


class Arrival(NamedTuple):
    """The way of a service's descriptors to its process.

    `numbers` maps their numbers in spawnd to those in the process; `error` is the number of the socket for
    the report. `moved` arrive on numbers of the block, `sent` arrive in messages. `highest` is the highest
    number of a copied table, -1 without one.
    """

    numbers: Mapping[int, int]
    error: int
    moved: tuple[int, ...] = ()
    sent: tuple[int, ...] = ()
    highest: int = -1


def in_copy(fds: Collection[int], error: int) -> Arrival:
    """Return the way in a table that is copied with the process."""
    return in_fork(fds, error)._replace(highest=max(_open_numbers()))


def in_fork(fds: Collection[int], error: int) -> Arrival:
    """Return the way to a forked child."""
    return Arrival({fd: fd for fd in fds}, error)


def in_messages(fds: Collection[int], error: int) -> Arrival:
    """Return the way to a process that has no descriptor but `error`."""
    sent = tuple(fds)
    return Arrival(_received(sent, {error}), error, sent=sent)


def _received(fds: Collection[int], used: Set[int]) -> dict[int, int]:
    """Return the lowest free numbers, which descriptors from messages get."""
    free = (number for number in range(len(used) + len(fds)) if number not in used)
    return dict(zip(fds, free, strict=False))


def _open_numbers() -> Iterator[int]:
    return map(int, os.listdir("/proc/self/fd"))


class Program:
    """Owns the descriptors of the programs and the block of reserved numbers as long as this process lives."""

    def __init__(self) -> None:
        """Open the programs. Raises OSError, ENOEXEC if their file system forbids execution."""
        self._fd = os.open(PATH, os.O_PATH | os.O_CLOEXEC)
        try:
            if os.fstatvfs(self._fd).f_flag & os.ST_NOEXEC:
                raise OSError(ENOEXEC, "its file system is mounted with noexec", PATH)
            self._acceptor = os.open(ACCEPTOR, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            os.close(self._fd)
            raise
        self._block: tuple[int, ...] = ()
        self._free: tuple[int, ...] = ()  # numbers of it for a service

    def acceptor(self) -> int:
        """Return the path descriptor of the program of acceptors, which stays this object's own.

        A file that users cannot read makes their process undumpable from its first instruction on, so root takes the
        right to read it away where an installer has given it. Raises OSError.
        """
        mode = os.fstat(self._acceptor).st_mode
        if os.geteuid() == 0 and mode & 0o066:
            os.chmod(f"/proc/self/fd/{self._acceptor}", mode & 0o711)
        return self._acceptor

    def reserve(self) -> None:
        """Reserve the block with low numbers, before this process has many descriptors."""
        unused = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
        numbers = (ctypes.c_int * BLOCK)()
        self._block = tuple(numbers[: _reserve_block(unused, numbers)])
        self._free = self._block[OWN:]

    def arrival(self, fds: Collection[int], error: int) -> Arrival:
        """Return the way of descriptors of this process; `error` is a socket."""
        found = array("i", sorted(fds))
        count = _find_sockets(*found.buffer_info()) if found else 0
        moved, sent = tuple(found[:count]), tuple(found[count:])
        if OWN + count > len(self._block):
            return in_copy(found, error)
        numbers = dict(zip(moved, self._free, strict=False))
        own_error = self._block[1]
        if sent:
            numbers |= _received(sent, {own_error, *numbers.values()})
        return Arrival(numbers, own_error, moved, sent)

    def start(self, plan: bytes, arrival: Arrival, error: int, ours: int) -> int:
        """Start a process with a plan for this arrival, and return its pid, which the caller registers.

        `error` is its end of the pair of sockets, `ours` the other one. Raises OSError.
        """
        moved, sent = arrival.moved, arrival.sent
        fds = array("i", moved + sent)
        pid: int = _start_launch(
            self._fd, plan, len(plan), error, ours, fds.buffer_info()[0], len(moved), len(sent), arrival.highest
        )
        if pid >= 0:
            return pid
        number = -pid & ~NO_PROGRAM
        cause = os.strerror(number)
        raise OSError(number, f"{PATH} is not executed: {cause}" if -pid & NO_PROGRAM else cause)


def carry_out_forked(plan: bytes, error: int) -> tuple[list[bytes], int]:
    """Carry out a plan without a program in this process, a forked child with a single thread.

    `error` is the socket for the report of a failure, after which this process ends. It also ends if spawnd is gone.
    Returns the assignments of the environment, and the number to which the socket has moved.
    """
    moved = ctypes.c_int(error)
    found = _carry_out_forked(plan, len(plan), moved)
    return list(takewhile(lambda assignment: assignment is not None, found)), moved.value
