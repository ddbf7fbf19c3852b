"""Descriptors: creation, closing in bulk, comparison, and holes in open files.

C libraries lack functions for some calls, or gained them late, so these are made by number: close_range(2),
pidfd_getfd(2), kcmp(2).
"""

from __future__ import annotations

import ctypes
import os
import socket
from enum import IntEnum

from supervisor.linux.libc import check, function

# the same on every architecture but Alpha, <asm-generic/unistd.h>
NR_CLOSE_RANGE = 436
NR_PIDFD_GETFD = 438

CLOSE_RANGE_UNSHARE = 1 << 1
CLOSE_RANGE_CLOEXEC = 1 << 2  # Linux 5.11
SO_DOMAIN = 39  # <asm-generic/socket.h>
LAST_DESCRIPTOR = 0xFFFFFFFF  # ~0U: up to the highest possible descriptor

_close_range = function("syscall", ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_getsockopt = function(
    "getsockopt", ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint)
)
_pidfd_getfd = function("syscall", ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_ulong)

# <linux/falloc.h>
FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2

_fallocate = function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)  # off_t

KCMP_FILE = 0
# the C library has no function; 272 is the number on architectures with the generic table
_KCMP_NUMBERS = {"x86_64": 312, "i686": 349, "armv7l": 378, "ppc64le": 354, "s390x": 343}
_NR_KCMP = _KCMP_NUMBERS.get(os.uname().machine, 272)
_kcmp = function(
    "syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong
)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """Close the descriptors from `first` to `last`, inclusive (Linux 5.9).

    Numbers without an open descriptor are ignored. Raises OSError, EINVAL if `first` exceeds `last`.
    """
    check(_close_range(NR_CLOSE_RANGE, first, last, flags))


def pidfd_getfd(pidfd: int, targetfd: int, flags: int = 0) -> int:
    """Return a close-on-exec duplicate of descriptor `targetfd` of the process `pidfd` (Linux 5.6); the caller owns it.

    Raises OSError: EBADF if the process has no such descriptor, EPERM without the right to ptrace(2) it,
    ESRCH if it is dead.
    """
    return check(_pidfd_getfd(NR_PIDFD_GETFD, pidfd, targetfd, flags))


def socket_family(fd: int) -> int:
    """Return the address family of a socket, e.g. AF_UNIX. Raises OSError.

    The kernel needs no lock of the socket for this; `socket.socket(fileno=fd)` calls getsockname(2), which
    may need it.
    """
    family = ctypes.c_int()
    size = ctypes.c_uint(ctypes.sizeof(family))
    check(_getsockopt(fd, socket.SOL_SOCKET, SO_DOMAIN, ctypes.byref(family), ctypes.byref(size)))
    return family.value


def memfd(name: str, data: bytes) -> int:
    """Return a close-on-exec memfd with the data, positioned at its start; the caller owns it. Raises OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Release the storage of `length` bytes at `offset`; they read as zeros, and the file keeps its size.

    Raises OSError, EOPNOTSUPP if the file system does not support holes.
    """
    check(_fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, length))


class Order(IntEnum):
    """The kernel's order of two open files, which is arbitrary but constant while both are open."""

    EQUAL = 0
    LESS = 1
    GREATER = 2
    UNKNOWN = 3


def kcmp_files(fd1: int, fd2: int) -> Order:
    """Return the order of two descriptors' open file descriptions; EQUAL if the descriptors share one.

    The descriptors are those of this process. UNKNOWN without CONFIG_KCMP, or if a filter forbids the call.
    Compare descriptors of another process as duplicates, because the kernel would wait for an execve of that
    process, possibly forever.
    """
    pid = os.getpid()
    try:
        return Order(check(_kcmp(_NR_KCMP, pid, pid, KCMP_FILE, fd1, fd2)))
    except (OSError, ValueError):
        return Order.UNKNOWN
