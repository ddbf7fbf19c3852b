"""The listening socket of the control interface."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from supervisor.errors import RuntimeFolderError

BACKLOG = 512
MODE = 0o666  # anybody may connect, to be told by name that they may not


def open_listener(path: str) -> socket.socket:
    """A listening socket at `path`, in the place of what was there; the caller owns it.

    It gets its name once it is complete, so no client ever finds one that refuses it.
    Raises RuntimeFolderError.
    """
    new = f"{path[:-1]}~"  # no longer than the path: there is a limit
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with suppress(FileNotFoundError):
            os.unlink(new)
        sock.bind(new)
        os.chmod(new, MODE)
        sock.listen(BACKLOG)
        os.rename(new, path)
    except OSError as error:
        sock.close()
        cause = error.strerror or str(error)
        raise RuntimeFolderError(f"cannot make control socket {path!r}: {cause}") from error
    return sock
