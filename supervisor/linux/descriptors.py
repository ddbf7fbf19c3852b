"""Descriptors by number: close_range(2), pidfd_getfd(2) and the family of a socket.

The first two are called by number, as C libraries learned the names late: glibc 2.34 and 2.36.
"""

from __future__ import annotations

import ctypes
import socket

from supervisor.linux.libc import check, function

# the same on every architecture but Alpha, <asm-generic/unistd.h>
NR_CLOSE_RANGE = 436
NR_PIDFD_GETFD = 438

CLOSE_RANGE_UNSHARE = 1 << 1
CLOSE_RANGE_CLOEXEC = 1 << 2  # Linux 5.11
SO_DOMAIN = 39  # <asm-generic/socket.h>
LAST_DESCRIPTOR = 0xFFFFFFFF  # ~0U: up to the last one that there is

_close_range = function("syscall", ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_getsockopt = function(
    "getsockopt", ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint)
)
_pidfd_getfd = function("syscall", ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_ulong)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """Close the descriptors `first` to `last`, both included (Linux 5.9).

    Numbers that are not open are no error.  Raises OSError, EINVAL for `first` above `last`.
    """
    check(_close_range(NR_CLOSE_RANGE, first, last, flags))


def pidfd_getfd(pidfd: int, targetfd: int, flags: int = 0) -> int:
    """A duplicate, close-on-exec, of descriptor `targetfd` of the process `pidfd` (Linux 5.6); the caller owns it.

    Raises OSError: EBADF where the process has no such descriptor, EPERM without the right to
    ptrace(2) it, ESRCH when it is dead.
    """
    return check(_pidfd_getfd(NR_PIDFD_GETFD, pidfd, targetfd, flags))


def socket_family(fd: int) -> int:
    """The address family of a socket, AF_UNIX for one.  Raises OSError.

    The kernel takes no lock of the socket for that; `socket.socket(fileno=fd)` calls getsockname(2), which may.
    """
    family = ctypes.c_int()
    size = ctypes.c_uint(ctypes.sizeof(family))
    check(_getsockopt(fd, socket.SOL_SOCKET, SO_DOMAIN, ctypes.byref(family), ctypes.byref(size)))
    return family.value
