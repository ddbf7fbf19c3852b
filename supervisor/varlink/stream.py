"""Reading from peers that nobody trusts: bytes are taken, descriptors are not.

Who sends a descriptor over a Unix socket (SCM_RIGHTS) leaves its last close to whoever it is
sent to.  That close may wait for hours, as that of a socket with SO_LINGER does, and it comes
in whatever way the descriptor goes: received and closed, discarded by a recv(2) that has no
room for it, or with the connection in whose queue it is.  So it is looked for before it is
touched; getting rid of such a connection is the business of the one who owns it.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from supervisor.varlink.errors import Malformed

CHUNK = 1 << 14  # bytes at a time: what one peer has to say must not keep the others waiting


def receive(sock: socket.socket, size: int = CHUNK) -> bytes:
    """What has come, at most `size` bytes; empty at the end.  Raises Malformed, and takes nothing: a descriptor came.

    Raises OSError, BlockingIOError where nothing is there.
    """
    # a look has references of its own to what it sees, so dropping those closes nothing: unix(7), MSG_CTRUNC
    data, _, flags, _ = sock.recvmsg(size, 0, socket.MSG_PEEK)
    if flags & socket.MSG_CTRUNC:
        raise Malformed("descriptors are not taken")
    return sock.recv(len(data)) if data else data


def has_descriptors(sock: socket.socket) -> bool:
    """Whether descriptors are among what nobody has read.  Ends the connection: nothing more can come or be sent."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.setblocking(False)
    try:
        while receive(sock):
            pass
    except Malformed:
        return True
    except OSError:
        pass
    return False
