"""The peer of a Unix socket: SO_PEERCRED and SO_PEERGROUPS, socket(7) and unix(7).

Both describe the peer at the time of its connect(2), listen(2) or socketpair(2).
"""

from __future__ import annotations

import array
import ctypes
import errno
import socket
import struct
from typing import NamedTuple

from supervisor.linux.libc import check, function

SO_PEERGROUPS = 59  # <asm-generic/socket.h>; Linux 4.13
_UCRED = struct.Struct("iII")
_GID_SIZE = array.array("I").itemsize

_getsockopt = function(
    "getsockopt",
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint),
)


class Credentials(NamedTuple):
    """The peer's process and effective ids in our namespaces; pid 0: the process is in an invisible PID namespace."""

    pid: int
    uid: int
    gid: int

    def describe(self) -> str:
        """Return the text for a log: `uid 0, pid 812`."""
        return f"uid {self.uid}, {f'pid {self.pid}' if self.pid else 'outside our PID namespace'}"


def peer_credentials(sock: socket.socket) -> Credentials:
    """Return process and ids of the peer. Raises OSError."""
    return Credentials(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def peer_groups(sock: socket.SocketType) -> tuple[int, ...]:
    """Return all supplementary groups of the peer (`socket.getsockopt` is limited to 1024 bytes).

    Raises OSError: ENODATA if the credentials of the peer are unknown.
    """
    room = 32  # usually sufficient; otherwise the kernel returns the required size
    while True:
        groups = array.array("I", bytes(room * _GID_SIZE))
        size = ctypes.c_uint(room * _GID_SIZE)
        address, _ = groups.buffer_info()
        try:
            check(_getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, address, ctypes.byref(size)))
        except OSError as error:
            if error.errno != errno.ERANGE or size.value <= room * _GID_SIZE:
                raise
            room = size.value // _GID_SIZE
            continue
        return tuple(groups[: size.value // _GID_SIZE])
