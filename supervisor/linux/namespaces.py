"""Namespaces and mounts in them: setns(2), unshare(2), ioctl_nsfs(2), mount(2), umount2(2), and temporary entry.

Python has the first two in `os` since 3.12.
"""

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

# <linux/mount.h>
MS_RDONLY = 1
MS_NOSUID = 1 << 1
MS_NODEV = 1 << 2
MS_NOEXEC = 1 << 3
MS_SYNCHRONOUS = 1 << 4
MS_REMOUNT = 1 << 5
MS_DIRSYNC = 1 << 7
MS_NOATIME = 1 << 10
MS_NODIRATIME = 1 << 11
MS_BIND = 1 << 12
MS_MOVE = 1 << 13
MS_REC = 1 << 14
MS_SILENT = 1 << 15
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25
MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

NS_GET_NSTYPE = 0xB703  # <linux/nsfs.h>

_setns = function("setns", ctypes.c_int, ctypes.c_int)
_unshare = function("unshare", ctypes.c_int)
_mount = function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int)


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


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount, bind or change the propagation of a mount, according to `flags`. Raises OSError."""
    words = (os.fsencode(word) if word else None for word in (kind, data))
    type_of, options = words
    check(_mount(os.fsencode(source), os.fsencode(target), type_of, flags, options), target)


def umount2(target: str, flags: int = 0) -> None:
    """Unmount `target`. Raises OSError, EINVAL if it is not a mount point."""
    check(_umount2(os.fsencode(target), flags), target)
