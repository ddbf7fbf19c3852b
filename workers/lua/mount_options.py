"""The options of a mount in the format of mount(8), and the calls of mount(2) for them.

Each call of the kernel does one thing: a bind ignores every other flag, and a change of propagation does nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from supervisor.linux import namespaces as mount

SET = {
    b"ro": mount.MS_RDONLY,
    b"nosuid": mount.MS_NOSUID,
    b"nodev": mount.MS_NODEV,
    b"noexec": mount.MS_NOEXEC,
    b"sync": mount.MS_SYNCHRONOUS,
    b"remount": mount.MS_REMOUNT,
    b"dirsync": mount.MS_DIRSYNC,
    b"noatime": mount.MS_NOATIME,
    b"nodiratime": mount.MS_NODIRATIME,
    b"bind": mount.MS_BIND,
    b"rbind": mount.MS_BIND | mount.MS_REC,
    b"move": mount.MS_MOVE,
    b"silent": mount.MS_SILENT,
    b"relatime": mount.MS_RELATIME,
    b"strictatime": mount.MS_STRICTATIME,
    b"lazytime": mount.MS_LAZYTIME,
}
CLEARED = {
    b"rw": mount.MS_RDONLY,
    b"suid": mount.MS_NOSUID,
    b"dev": mount.MS_NODEV,
    b"exec": mount.MS_NOEXEC,
    b"async": mount.MS_SYNCHRONOUS,
    b"atime": mount.MS_NOATIME,
    b"diratime": mount.MS_NODIRATIME,
    b"defaults": 0,
}
PROPAGATION = {
    b"unbindable": mount.MS_UNBINDABLE,
    b"private": mount.MS_PRIVATE,
    b"slave": mount.MS_SLAVE,
    b"shared": mount.MS_SHARED,
    b"runbindable": mount.MS_UNBINDABLE | mount.MS_REC,
    b"rprivate": mount.MS_PRIVATE | mount.MS_REC,
    b"rslave": mount.MS_SLAVE | mount.MS_REC,
    b"rshared": mount.MS_SHARED | mount.MS_REC,
}
OF_A_BIND = mount.MS_BIND | mount.MS_REC | mount.MS_SILENT
# flags with the same values in statvfs(3)
INHERITED = mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC


@dataclass(frozen=True, slots=True)
class Options:
    """`data` is the text for the file system, `propagation` has flags for separate calls."""

    flags: int = 0
    data: bytes = b""
    propagation: tuple[int, ...] = ()

    @property
    def is_of_a_folder(self) -> bool:
        """Whether the source is a path to be mounted elsewhere, rather than a device."""
        return bool(self.flags & (mount.MS_BIND | mount.MS_MOVE)) and not self.flags & mount.MS_REMOUNT


def parse(options: bytes) -> Options:
    """Parse options like `b"ro,nosuid,size=1m"`; later ones win."""
    flags, own, propagation = 0, [], []
    for option in filter(None, options.split(b",")):
        if option in SET:
            flags |= SET[option]
        elif option in CLEARED:
            flags &= ~CLEARED[option]
        elif option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        else:
            own.append(option)
    return Options(flags, b",".join(own), tuple(propagation))


def mount_all(source: str, target: Callable[[], AbstractContextManager[int]], kind: str, options: Options) -> None:
    """Mount with all options, or not at all; without a type and flags, change only the propagation.

    `target` opens an O_PATH descriptor anew for each call: the previous one is below the new mount.
    """
    makes = kind not in ("", "none") or bool(options.flags or options.data) or not options.propagation
    if makes:
        _mount(source, target, kind, options.flags, options.data)
    try:
        if _is_bind_with_more(options.flags):
            # the flags of the original mount stay: a read-only bind must not permit devices
            with target() as fd:
                inherited = os.statvfs(fd).f_flag & INHERITED
            flags = options.flags & ~mount.MS_REC | inherited
            _mount(source, target, "", flags | mount.MS_REMOUNT, options.data)
        for flags in options.propagation:
            _mount("none", target, "", flags)
    except OSError:
        if makes and not options.flags & (mount.MS_REMOUNT | mount.MS_MOVE):
            with target() as fd:
                mount.umount2(f"/proc/self/fd/{fd}", mount.MNT_DETACH)
        raise


def _mount(
    source: str, target: Callable[[], AbstractContextManager[int]], kind: str, flags: int, data: bytes = b""
) -> None:
    with target() as fd:
        mount.mount(source, f"/proc/self/fd/{fd}", kind, flags, os.fsdecode(data))


def _is_bind_with_more(flags: int) -> bool:
    return bool(flags & mount.MS_BIND) and not flags & mount.MS_REMOUNT and bool(flags & ~OF_A_BIND)
