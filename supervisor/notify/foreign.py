"""Descriptors that another process made: what looking at them and closing them may cost."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from contextlib import suppress

_NO_LINGER = struct.pack("=ii", 0, 0)


def target(fd: int) -> str:
    """What the kernel calls that which `fd` refers to, `socket:[4711]` or a path; asks no file system."""
    return os.readlink(f"/proc/self/fd/{fd}")


def is_file(fd: int) -> bool:
    """Whether `fd` is of a file system, whose server may never answer: FUSE, NFS.

    What the kernel makes by itself has no path.  A memfd shows one, which anybody could give
    to a file of theirs; but only what is memory, files on tmpfs too, has seals.
    """
    if not target(fd).startswith("/"):
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return True
    return False


def close_foreign(fd: int) -> None:
    """Close a descriptor that came from another process, and do not wait for what that left in it.

    The last close of a socket with SO_LINGER waits for its peer, for hours if it likes:
    socket(7).  Without the option the kernel sees to the rest in the background.  Each close of
    a file waits for its file system: that is left to a thread, which holds nothing else.
    """
    if is_file(fd):
        with suppress(RuntimeError):
            threading.Thread(target=os.close, args=(fd,), daemon=True).start()
            return
    try:
        handle = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
    except OSError:  # ENOTSOCK
        os.close(fd)
        return
    with suppress(OSError):
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    handle.close()
