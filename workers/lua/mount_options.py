"""The options of a mount as mount(8) takes them: flags of the kernel, and what is the file system's own."""

from __future__ import annotations

from supervisor.linux import mount

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
    b"unbindable": mount.MS_UNBINDABLE,
    b"private": mount.MS_PRIVATE,
    b"slave": mount.MS_SLAVE,
    b"shared": mount.MS_SHARED,
    b"rprivate": mount.MS_PRIVATE | mount.MS_REC,
    b"rslave": mount.MS_SLAVE | mount.MS_REC,
    b"rshared": mount.MS_SHARED | mount.MS_REC,
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


def parse(options: bytes) -> tuple[int, bytes]:
    """`b"ro,nosuid,size=1m"` as flags, and the text that the file system gets; later ones win."""
    flags, own = 0, []
    for option in filter(None, options.split(b",")):
        if option in SET:
            flags |= SET[option]
        elif option in CLEARED:
            flags &= ~CLEARED[option]
        else:
            own.append(option)
    return flags, b",".join(own)
