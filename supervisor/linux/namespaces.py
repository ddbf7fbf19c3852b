"""Namespaces: setns(2) and unshare(2), which `os` has since Python 3.12, ioctl_nsfs(2), and temporary entry."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from supervisor.linux.libc import check, function

# <linux/sched.h>
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

NS_GET_NSTYPE = 0xB703  # <linux/nsfs.h>

_setns = function("setns", ctypes.c_int, ctypes.c_int)
_unshare = function("unshare", ctypes.c_int)


def setns(fd: int, nstype: int = 0) -> None:
    """Move the calling thread into the namespace of `fd`; `nstype` 0 accepts every type.

    For a pidfd (Linux 5.8), `nstype` names one or more types. Raises OSError: EINVAL for a descriptor of
    another type, EPERM without CAP_SYS_ADMIN over the namespace.
    """
    check(_setns(fd, nstype))


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces of the types in `flags`. Raises OSError."""
    check(_unshare(flags))


def ns_get_nstype(fd: int) -> int:
    """Return the type of the namespace of `fd` as a CLONE_* flag: ioctl_nsfs(2).

    Raises OSError, ENOTTY if `fd` is not a namespace.
    """
    return fcntl.ioctl(fd, NS_GET_NSTYPE)


@contextmanager
def inside(fd: int) -> Iterator[None]:
    """Enter the network namespace of `fd` temporarily; sockets opened there remain there. Raises OSError.

    The process has a single thread.
    """
    here = own_namespace()
    try:
        setns(fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(here, CLONE_NEWNET)
    finally:
        os.close(here)


def own_namespace() -> int:
    """Open the network namespace of the calling thread; the caller owns the descriptor."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
