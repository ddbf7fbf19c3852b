"""mount(2) and umount2(2)."""

from __future__ import annotations

import ctypes
import os

from supervisor.linux.libc import check, function

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

_mount = function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount, bind or change the propagation of a mount, according to `flags`. Raises OSError."""
    words = (os.fsencode(word) if word else None for word in (kind, data))
    type_of, options = words
    check(_mount(os.fsencode(source), os.fsencode(target), type_of, flags, options), target)


def umount2(target: str, flags: int = 0) -> None:
    """Unmount `target`. Raises OSError, EINVAL if it is not a mount point."""
    check(_umount2(os.fsencode(target), flags), target)
