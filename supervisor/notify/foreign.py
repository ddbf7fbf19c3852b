"""Descriptors that another process made: what looking at them and closing them may cost."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress

from supervisor.linux.open_files import SOCKET

_NO_LINGER = struct.pack("=ii", 0, 0)
_NEVER_HOLD_OTHERS = (int(socket.AF_INET), int(socket.AF_INET6))


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


def close_foreign(fds: Iterable[int]) -> None:
    """Close descriptors that came from another process, and do not wait for what that left in them.

    The last close of a socket with SO_LINGER waits for its peer, for hours if it likes: socket(7).
    Without the option the kernel sees to the rest in the background.  A Unix socket may have such
    sockets on their way in it, and each close of a file waits for its file system: these are
    left to one thread, which holds nothing else.
    """
    waiting = [fd for fd in fds if not _close_nowait(fd)]
    if not waiting:
        return
    try:
        threading.Thread(target=_close_each, args=(waiting,), daemon=True).start()
    except RuntimeError:  # there is none to be had
        _close_each(waiting)


def _close_nowait(fd: int) -> bool:
    """Close what can be closed at once; whether it was."""
    if not target(fd).startswith(SOCKET):
        if is_file(fd):
            return False
        os.close(fd)
        return True
    handle = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)  # or else Python asks for all three
    if handle.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) not in _NEVER_HOLD_OTHERS:
        handle.detach()
        return False
    with suppress(OSError):
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    handle.close()
    return True


def _close_each(fds: Iterable[int]) -> None:
    """Sockets first, as those do end; a file system may never answer."""
    for fd in sorted(fds, key=is_file):
        with suppress(OSError):  # what could not be written is its sender's loss
            os.close(fd)
