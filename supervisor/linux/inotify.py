"""inotify(7): notification of changes in folders and files."""

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
    """Return a descriptor to read events from; the caller owns it. Raises OSError, EMFILE if the user has too many."""
    return check(_inotify_init1(flags))


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """Watch the file at `path`; return the watch's number, the existing one if the inode is watched already.

    Numbers are not reused. Raises OSError, ENOSPC if the user has reached fs.inotify.max_user_watches.
    """
    return check(_inotify_add_watch(fd, os.fsencode(path), mask), path)


def inotify_rm_watch(fd: int, wd: int) -> None:
    """End a watch; an event with IN_IGNORED follows. Raises OSError, EINVAL if the watch has ended already."""
    check(_inotify_rm_watch(fd, wd))


def parse_events(data: bytes) -> list[tuple[int, int, str]]:
    """Return watch, mask and name of each event in data read from the descriptor, which has whole events only.

    The name is '' for an event of the watched file itself. Watch -1 with IN_Q_OVERFLOW means that events were
    lost. Ends of watches (IN_IGNORED) are omitted.
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
