"""inotify(7): being told what happens in folders and to files."""

from __future__ import annotations

import ctypes
import os
import struct

from supervisor.linux.libc import check, function

# <linux/inotify.h>
IN_MODIFY = 0x00000002
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_Q_OVERFLOW = 0x00004000
IN_IGNORED = 0x00008000
IN_ONLYDIR = 0x01000000
IN_ISDIR = 0x40000000
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC

_EVENT = struct.Struct("=iIII")  # struct inotify_event: wd, mask, cookie, len; then the name, padded with NUL
_unpack, _SIZE = _EVENT.unpack_from, _EVENT.size

_inotify_init1 = function("inotify_init1", ctypes.c_int)
_inotify_add_watch = function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_inotify_rm_watch = function("inotify_rm_watch", ctypes.c_int, ctypes.c_int)


def inotify_init1(flags: int = IN_CLOEXEC) -> int:
    """A descriptor to read events from; the caller owns it.  Raises OSError, EMFILE: the user has too many."""
    return check(_inotify_init1(flags))


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """Watch what is at `path`; the number of the watch, the same one for an inode that is watched already.

    Numbers are not used again.  Raises OSError, ENOSPC: the user has as many watches as
    fs.inotify.max_user_watches lets them have.
    """
    return check(_inotify_add_watch(fd, os.fsencode(path), mask), path)


def inotify_rm_watch(fd: int, wd: int) -> None:
    """End a watch; an event with IN_IGNORED follows.  Raises OSError, EINVAL: it has ended already."""
    check(_inotify_rm_watch(fd, wd))


def parse_events(data: bytes) -> list[tuple[int, int, str]]:
    """Watch, mask and name of each event in what was read, which always is whole events.

    The name is '' where the event is of the watched thing itself.  Watch -1 with IN_Q_OVERFLOW:
    events were lost.  That a watch has ended (IN_IGNORED) is left out.
    """
    events = []
    at, end = 0, len(data)
    while at < end:
        wd, mask, _cookie, size = _unpack(data, at)
        at += _SIZE
        if size:
            name = os.fsdecode(data[at : at + size].rstrip(b"\0"))
            at += size
            events.append((wd, mask, name))
        elif not mask & IN_IGNORED:
            events.append((wd, mask, ""))
    return events
