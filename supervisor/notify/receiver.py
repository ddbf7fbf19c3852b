"""The receiving end of the notification protocol: one named datagram socket for each service."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from supervisor.notify.foreign import close_foreign
from supervisor.notify.protocol import MAX_DATAGRAM, MAX_DESCRIPTORS, Message, parse

# More than a socket ever holds (net.unix.max_dgram_qlen, 512 under systemd), so that all that a dead
# process said is among them; not without end, or one that never stops sending would keep everybody waiting.
MAX_AT_ONCE = 1024
_UCRED = struct.Struct("=iII")  # pid, uid, gid: struct ucred of socket.h
# as numbers: to combine two members of an enumeration costs as much as a system call
_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_SPACE = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)


@dataclass(frozen=True, slots=True)
class Notification:
    """A message with its sender's credentials.  Who takes it owns `fds`."""

    data: bytes
    pid: int
    uid: int
    fds: tuple[int, ...]

    @property
    def message(self) -> Message:
        """What it says, parsed each time: worth it for a sender that is believed."""
        return parse(self.data)

    def close(self) -> None:
        close_foreign(self.fds)


class Receiver:
    """The bound `sock` at `path`.  Owns both."""

    def __init__(self, path: str, sock: socket.socket) -> None:
        self.path = path
        self._socket = sock

    @classmethod
    def bind(cls, path: str, uid: int) -> Receiver:
        """Bind a new one, in the place of what an earlier supervisor left there.  Raises OSError.

        `uid` and root may send; who is believed is decided by the credentials.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            with suppress(FileNotFoundError):
                os.unlink(path)
            sock.bind(path)
            # until here the umask keeps others out
            os.chmod(path, 0o600)
            os.chown(path, uid, -1)
        except BaseException:
            sock.close()
            raise
        return cls(path, sock)

    @classmethod
    def resume(cls, path: str, fd: int) -> Receiver:
        """Go on with one that this process has bound in an earlier life; takes `fd` over."""
        return cls(path, socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive_nowait(self, limit: int = MAX_AT_ONCE) -> Iterator[Notification]:
        """All notifications at hand, at most `limit`; what is no whole one is dropped."""
        for _ in range(limit):
            try:
                data, ancillary, flags, _address = self._socket.recvmsg(MAX_DATAGRAM, _SPACE, _FLAGS)
            except BlockingIOError:
                return
            notification = Notification(data, *_unpack(ancillary))
            # the kernel sends credentials always; those of another pid namespace have no pid
            if notification.pid > 0 and not flags & _CUT:
                yield notification
            else:
                notification.close()

    def close(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        # nothing more comes, and what has come must not go with the socket: that might wait
        self._socket.shutdown(socket.SHUT_RD)
        for notification in self.receive_nowait(sys.maxsize):
            notification.close()
        self._socket.close()


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int, tuple[int, ...]]:
    pid = uid = -1
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS:
            pid, uid, _gid = _UCRED.unpack(data[: _UCRED.size])
        elif kind == socket.SCM_RIGHTS:
            fds.extend(fd for (fd,) in struct.iter_unpack("=i", data[: len(data) // 4 * 4]))
    return pid, uid, tuple(fds)
