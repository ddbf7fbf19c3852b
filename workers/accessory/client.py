"""The client of the accessory, for programs in Python.

    with Accessory() as accessory, accessory.request("customer-1", ipc=True, pid=True, lease=True) as got:
        setns(got.ipc, CLONE_NEWIPC)
        …

The namespaces live at least until `got` is closed, with its lease, and 60 seconds more. Descriptors are
close-on-exec. Joining an IPC or PID namespace takes CAP_SYS_ADMIN, joining a user namespace its owner.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from types import TracebackType

from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER
from workers.accessory.protocol import (
    MAX_DATAGRAM,
    Command,
    ProtocolError,
    Response,
    encode_datagram,
    encode_packet,
    packets,
)

ADDRESS = "@cm4all-spawn"
TIMEOUT = 60.0  # seconds for an answer
OVERHEAD = 64  # the most bytes of a datagram besides its name and maps
_TIMEVAL = struct.Struct("@ll")
_SPACE = socket.CMSG_SPACE(4 * 4)  # three namespaces and a lease


class RequestError(Exception):
    """The accessory refused the request; the text says why."""


@dataclass(slots=True)
class Namespaces:
    """Descriptors of the namespaces of a request and of the lease, which ends when it is closed; -1 for others."""

    ipc: int = -1
    pid: int = -1
    user: int = -1
    lease: int = -1

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        for field in ("ipc", "pid", "user", "lease"):
            fd = getattr(self, field)
            setattr(self, field, -1)
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Accessory:
    """A connection to the accessory at `address`, a path or `@name`.

    `timeout` limits each wait, in seconds; None: no limit. Raises OSError if the accessory cannot be reached,
    BlockingIOError when the time is up.
    """

    def __init__(self, address: str = ADDRESS, timeout: float | None = TIMEOUT) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            # limits of the kernel, because Python's would not wait for a full listen backlog
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                seconds, rest = divmod(timeout or 0, 1)
                self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(seconds), int(rest * 1_000_000)))
            self._socket.connect("\0" + address[1:] if address.startswith("@") else address)
        except BaseException:
            self._socket.close()
            raise

    def request(
        self, name: str, *, ipc: bool = False, pid: bool = False, user: bytes | None = None, lease: bool = False
    ) -> Namespaces:
        """Return namespaces of `name`, which the caller closes; all requests for a name get the same ones.

        `user` is a `uid_map`, or `uid_map NUL gid_map`, in the format of /proc/PID/uid_map. Raises
        RequestError with the accessory's answer. Raises OSError if the connection fails, and closes it.
        """
        check_request(name, user or b"")
        datagram = encode_request(name, ipc=ipc, pid=pid, user=user, lease=lease)
        try:
            self._socket.send(datagram)
            if not (ipc or pid or lease or user is not None):
                return Namespaces()  # such a request has no answer
            reply, fds = self._receive()
        except BaseException:
            self.close()  # otherwise a late answer would be taken for that of the next request
            raise
        try:
            return take_reply(reply, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _receive(self) -> tuple[bytes, list[int]]:
        datagram, ancillary, flags, _ = self._socket.recvmsg(MAX_DATAGRAM, _SPACE, socket.MSG_CMSG_CLOEXEC)
        fds = [
            fd
            for level, kind, data in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            for (fd,) in struct.iter_unpack("=i", data[: len(data) // 4 * 4])
        ]
        if datagram and not flags & socket.MSG_CTRUNC:
            return datagram, fds
        for fd in fds:
            os.close(fd)
        if datagram:
            raise OSError("cannot take the descriptors: too many open files")
        raise ConnectionResetError("the accessory has closed the connection")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Accessory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def check_request(name: str, user: bytes) -> None:
    """Raise RequestError for a request for which the accessory would end the connection."""
    if not name:
        raise RequestError("empty NAME")
    if not name.isascii() or min(name) < " ":
        raise RequestError("malformed NAME: not 7-bit ASCII without control characters")
    if len(name) + len(user) > MAX_DATAGRAM - OVERHEAD:
        raise RequestError(f"NAME and USER_NAMESPACE of {len(name) + len(user)} bytes: longer than a datagram")


def encode_request(
    name: str, *, ipc: bool = False, pid: bool = False, user: bytes | None = None, lease: bool = False
) -> bytes:
    """Return the datagram of a request."""
    wanted = [encode_packet(Command.NAME, name.encode("ascii"))]
    if ipc:
        wanted.append(encode_packet(Command.IPC_NAMESPACE))
    if pid:
        wanted.append(encode_packet(Command.PID_NAMESPACE))
    if user is not None:
        wanted.append(encode_packet(Command.USER_NAMESPACE, user))
    if lease:
        wanted.append(encode_packet(Command.LEASE_PIPE))
    return encode_datagram(wanted)


def take_reply(datagram: bytes, fds: list[int]) -> Namespaces:
    """Read a reply and take its descriptors out of `fds`. Raises RequestError, ProtocolError."""
    found = Namespaces()
    try:
        _take(found, datagram, fds)
    except BaseException as error:
        found.close()
        if isinstance(error, IndexError):
            raise ProtocolError("a reply without all of its descriptors") from error
        raise
    return found


def _take(found: Namespaces, datagram: bytes, fds: list[int]) -> None:
    for response, payload in packets(datagram):
        if response == Response.ERROR:
            raise RequestError(payload.decode("ascii", "replace"))
        if response == Response.LEASE_PIPE:
            found.lease = fds.pop(0)
        elif response == Response.NAMESPACE_HANDLES:
            for (flag,) in struct.iter_unpack("=I", payload):
                _set(found, flag, fds.pop(0))


def _set(found: Namespaces, flag: int, fd: int) -> None:
    match flag:
        case _ if flag == CLONE_NEWIPC:
            found.ipc = fd
        case _ if flag == CLONE_NEWPID:
            found.pid = fd
        case _ if flag == CLONE_NEWUSER:
            found.user = fd
        case _:
            os.close(fd)  # of a kind that the request does not name
