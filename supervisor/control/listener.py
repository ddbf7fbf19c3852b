"""The listening socket of the control interface."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

from supervisor.errors import RuntimeFolderError
from supervisor.printable import quoted

BACKLOG = 512
MODE = 0o666  # anybody may connect, to be told by name that they may not
OWNER_MODE = 0o600  # root and the user that spawnd runs as

Inode = tuple[int, int]  # device and number


def open_listener(path: str, mode: int) -> socket.socket:
    """A listening socket at `path`, in the place of what was there; the caller owns it.

    The socket is bound at its final path, so that getsockname(2) tells the truth, and listens before anybody connects.
    Raises RuntimeFolderError.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        umask = os.umask(0o777)
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
        sock.listen(BACKLOG)
        os.chmod(path, mode)
    except OSError as error:
        sock.close()
        cause = error.strerror or str(error)
        raise RuntimeFolderError(f"cannot make control socket {quoted(path)}: {cause}") from error
    return sock


def inode_at(path: str) -> Inode | None:
    """The file at `path` itself; None: there is none."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def answers(path: str) -> bool:
    """Whether a process listens on a socket there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno == errno.EPROTOTYPE  # a datagram socket cannot connect to one that listens
    return True
