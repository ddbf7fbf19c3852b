"""Descriptors made by other processes: identifying them, and receiving, inspecting and closing them in a child.

A close may block for ever: for the peer of a socket with SO_LINGER (socket(7)), for the server of a FUSE file
at each close and not only the last, or for a grace period of the kernel. So the last close of a foreign
descriptor never happens in this process, and a file that a user-space or remote server provides is never in
its table. Children do that: `elsewhere.c`, beside this module. A child takes some 0.2 ms of the caller's
time; the cost of closing delays nothing else.

No file system is accessed, as it may never answer. No fdinfo is read: the kernel generates all of it before
the first byte, under locks that other processes may hold.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import select
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from supervisor.linux.descriptors import socket_family
from supervisor.linux.file_status import device_and_mount
from supervisor.linux.open_files import PIPE, SOCKET

PATIENCE_MS = 200  # for a child to copy the table and receive a message, even on a busy machine
MAX_DESCRIPTORS = 253  # per message: SCM_MAX_FD of the kernel
MOST_CLOSED = 1024  # descriptors per call
_NUMBER = struct.Struct("=i")
_RECEIVE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)

_library = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "libelsewhere.so"))

UNKNOWN = "/"
EPOLL = "anon_inode:[eventpoll]"
# without mount namespaces: the last close of one unmounts what is mounted in it alone
_NAMESPACES = tuple(f"{kind}:[" for kind in ("cgroup", "ipc", "net", "pid", "time", "user", "uts"))
# Descriptors with a hang-up of their own. Polling others may take a lock that another process holds.
_POLLABLE = ("pipe:", "pidfd:", *(f"anon_inode:{kind}" for kind in ("[eventfd", "[pidfd", "[timerfd")))
# Families whose poll takes no socket lock. That of AF_VSOCK does, and the holder may wait in a page fault.
_POLLABLE_FAMILIES = frozenset({socket.AF_UNIX, socket.AF_INET, socket.AF_INET6})
# The servers of these are processes or remote hosts: each close of a file waits for them.
_SERVED = ("fuse", "nfs", "cifs", "smb", "9p", "afs", "ceph", "coda", "lustre", "glusterfs", "virtiofs", "orangefs")
_AUTOMOUNT = "autofs"
_ESCAPE = re.compile(rb"\\([0-7]{3})")  # of a blank or backslash in the table of mounts: proc_pid_mountinfo(5)
_CREDENTIALS = socket.CMSG_SPACE(struct.calcsize("iII"))
_LOOK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_CHUNK = 1 << 16  # bytes per read
_MOST_LOOKS = 32  # into one connection, which may be full of tiny messages
_SO_PEEK_OFF = 42  # <asm-generic/socket.h>


class _Seen(ctypes.Structure):
    _fields_ = (
        ("link", ctypes.c_char * 64),
        ("has_seals", ctypes.c_int32),
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("mount", ctypes.c_uint64),
    )


_take = _library.take_elsewhere
_take.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_int))
_look = _library.look_elsewhere
_look.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Seen), ctypes.POINTER(ctypes.c_int))
_close = _library.close_elsewhere
_close.argtypes = (ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int)
_fetch = _library.fetch_elsewhere
_numbers = ctypes.POINTER(ctypes.c_int)
_fetch.argtypes = (
    *(_numbers, ctypes.c_int, ctypes.c_int, _numbers, _numbers, ctypes.c_int),
    *(ctypes.c_int, ctypes.POINTER(_Seen), _numbers),
)
_seen = (_Seen * MAX_DESCRIPTORS)()


class Seen(NamedTuple):
    """A descriptor in a message: its (truncated) link in /proc, whether it is memory, its device and its mount."""

    link: str
    has_seals: bool = False
    device: tuple[int, int] = (0, 0)
    mount: int = 0


def take_elsewhere(sock: int) -> tuple[int, bool, int]:
    """Have a child receive the next datagram, and close the descriptors that come with it.

    Return the child's pid, which the caller reaps; whether the child has confirmed taking the datagram; and a
    pidfd of the sender, which the caller owns, or -1: the kernel adds one if the socket has SO_PASSPIDFD. A
    datagram that was not taken is still in the queue, or the child, which has been killed, takes it before it
    ends. Raises OSError if no child can be forked.
    """
    taken = ctypes.c_int()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours:
        with theirs:
            pid = _checked(_take(sock, theirs.fileno(), PATIENCE_MS, ctypes.byref(taken)))
        found = receive_descriptor(ours)
    return pid, taken.value >= 0, -1 if found is None else found


def receive_descriptor(sock: socket.socket) -> int | None:
    """Receive a message with one descriptor, owned by the caller; None without a message or a free number for it."""
    return next(iter(receive_descriptors(sock, 1)), None)


def receive_descriptors(sock: socket.socket, most: int) -> list[int]:
    """Receive a message with descriptors, owned by the caller: the first ones, as many as there are numbers for."""
    try:
        ancillary = sock.recvmsg(0, socket.CMSG_SPACE(most * _NUMBER.size), _RECEIVE)[1]
    except BlockingIOError:
        return []
    return [number for (number,) in _NUMBER.iter_unpack(ancillary[0][2])] if ancillary else []


def look_elsewhere(sock: int) -> tuple[int, list[Seen] | None]:
    """Have a child inspect the descriptors in the next datagram; return its pid, which the caller reaps, and them.

    None for the descriptors if the child could not inspect them. Raises OSError if no child can be forked.
    """
    count = ctypes.c_int()
    pid = _checked(_look(sock, PATIENCE_MS, _seen, ctypes.byref(count)))
    if count.value < 0:
        return pid, None
    return pid, [_plain(seen) for seen in _seen[: count.value]]


def close_elsewhere(fds: Sequence[int]) -> int:
    """Close at most `MOST_CLOSED` descriptors so that a child, by its exit, does the last close; return its pid.

    The caller reaps the child. Raises OSError, and then none is closed.
    """
    ordered = sorted(fds)
    return _checked(_close(_array(ordered), len(ordered), PATIENCE_MS))


def fetch_elsewhere(wanted: Sequence[tuple[int, int]], sock: int) -> tuple[int, list[Seen | None] | None]:
    """Have a child send duplicates of other processes' descriptors, at most `MAX_DESCRIPTORS`, over `sock`.

    `wanted` are pairs of a pidfd and a number. Return the child's pid, which the caller reaps, and the sent
    descriptor for each pair, None for a closed number. None instead of the list: nothing was sent. Raises
    OSError if no child can be forked.
    """
    sent = ctypes.c_int()
    needed = sorted({sock, *(pidfd for pidfd, _number in wanted)})
    places = {fd: place for place, fd in enumerate(needed)}
    processes = _array([places[pidfd] for pidfd, _number in wanted])
    numbers = _array([number for _pidfd, number in wanted])
    pid = _checked(
        _fetch(
            *(_array(needed), len(needed), places[sock], processes, numbers, len(wanted)),
            *(PATIENCE_MS, _seen, ctypes.byref(sent)),
        )
    )
    if sent.value < 0:
        return pid, None
    found = [_plain(seen) for seen in _seen[: len(wanted)]]
    return pid, [seen if seen.link else None for seen in found]


def _array(numbers: Sequence[int]) -> ctypes.Array[ctypes.c_int]:
    return (ctypes.c_int * len(numbers))(*numbers)


def _plain(seen: _Seen) -> Seen:
    return Seen(os.fsdecode(seen.link), bool(seen.has_seals), (seen.major, seen.minor), seen.mount)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def target(fd: int) -> str:
    """Return the kernel's name for the file of `fd`, `socket:[4711]` or a path, without access to a file system.

    If the kernel has no name, as for a path over 4096 bytes, return `/`, as for a file of unknown origin.
    """
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return UNKNOWN


def is_open(fd: int) -> bool:
    """Whether this number is an open descriptor."""
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def is_file(fd: int) -> bool:
    """Whether `fd` is a file of a file system.

    Files that the kernel makes by itself have no path. A memfd shows one, which a user could give to an
    ordinary file; but only memory, including files on tmpfs, has seals.
    """
    return target(fd).startswith("/") and not is_memory(fd)


def is_memory(fd: int) -> bool:
    """Whether `fd` is memory: a memfd, or a file on tmpfs."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


def is_closed_at_once(fd: int) -> bool:
    """Whether even the last close is cheap, whatever other processes do.

    This holds for a namespace: the kernel destroys it in the background, and epoll does not accept it. It
    holds for no descriptor that epoll accepts, even a pipe or an eventfd: the last close waits for each epoll
    that contains it, which its makers can block.
    """
    return target(fd).startswith(_NAMESPACES)


def may_be_polled(fd: int) -> bool:
    """Whether watching `fd` for a hang-up never blocks. False for files and for epolls, which others fill."""
    name = target(fd)
    if name.startswith(SOCKET):
        try:
            return socket_family(fd) in _POLLABLE_FAMILIES
        except OSError:
            return False
    return name.startswith(_POLLABLE)


class LocalFileSystems:
    """The file systems that the administrator has mounted here and that the kernel itself provides.

    Mounts of a service in its own mount namespace are not among them. The table of mounts is read once, and again
    after a change, which poll(2) reports. Owns the table's descriptor, which is open from the first query on at the
    latest.
    """

    def __init__(self) -> None:
        self._table = -1
        self._poll = select.poll()
        self._devices: set[tuple[int, int]] = set()
        self._mounts: set[int] = set()
        self._automounts: set[str] = set()  # paths; a lookup waits for the automounter even while it unmounts

    def have_all(self, seen: list[Seen]) -> bool:
        """Whether this process may hold the descriptors: it, and its children, can close them without waiting.

        Raises OSError if there is no descriptor for the table of mounts.
        """
        files = [one for one in seen if one.link.startswith("/") and not one.has_seals]
        if not files:
            return True
        self._look()
        return all(self._have(one.device, one.mount) for one in files)

    def have(self, fd: int, name: str = "") -> bool:
        """Whether an open file is on one of them, or a `name` in an open folder that is; O_PATH is sufficient.

        A name is not, if to look it up may wait for an automounter. Raises OSError.
        """
        self._look()
        if not name:
            return self._have(*device_and_mount(fd))
        if name not in map(os.path.basename, self._automounts):
            return True
        self._read()  # a folder above may have been renamed, which the kernel does not report
        return os.path.join(target(fd), name) not in self._automounts

    def others(self, fds: Iterable[int]) -> set[int]:
        """Return those of the descriptors that are files of other file systems. Raises OSError."""
        return {fd for fd in fds if is_file(fd) and not self.have(fd)}

    def _have(self, device: tuple[int, int], mount: int) -> bool:
        return device in self._devices or (mount != 0 and mount in self._mounts)

    def close(self) -> None:
        if self._table >= 0:
            os.close(self._table)
            self._table = -1

    def open(self) -> None:
        """Open the table, unless it is open. Raises OSError."""
        if self._table < 0:
            self._table = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            self._poll = select.poll()
            self._poll.register(self._table, select.POLLPRI)
            self._mounts.clear()

    def _look(self) -> None:
        self.open()
        # each change is reported once; one during the read is reported by the next poll
        if not self._mounts or self._poll.poll(0):
            self._read()

    def _read(self) -> None:
        self._devices, self._mounts, self._automounts = set(), set(), set()
        with open(self._table, "rb", closefd=False) as table:
            table.seek(0)
            for line in table:
                fields = line.split()
                kind = fields[fields.index(b"-") + 1].decode()
                if kind == _AUTOMOUNT:
                    self._automounts.add(os.fsdecode(_ESCAPE.sub(_unescaped, fields[4])))
                if not kind.startswith(_SERVED):
                    major, minor = fields[2].split(b":")
                    self._devices.add((int(major), int(minor)))
                    self._mounts.add(int(fields[0]))


def _unescaped(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])


def is_empty(sock: socket.socket) -> bool:
    """Whether the queue of a Unix socket is empty. Takes nothing out of it."""
    with suppress(OSError):  # other holders of the socket may have set an offset
        sock.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, -1)
    try:
        # with no space at all: another holder could make the kernel use some for a descriptor
        return _peek(sock, 1, 0) is _Found.NOTHING
    except OSError:  # empty, or not connected
        return True


def may_hold_others(sock: socket.socket) -> bool:
    """Whether a connection may contain descriptors that no other process has. Ends it, and drains the rest."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.setblocking(False)
    for _ in range(_MOST_LOOKS):
        try:
            match _peek(sock, _CHUNK, 0 if sock.type is socket.SOCK_STREAM else _CREDENTIALS):
                case _Found.NOTHING:
                    return False
                case _Found.DESCRIPTORS:
                    return True
                case size:
                    sock.recv(size)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass  # reported once, before the data that the peer has left
        except OSError:
            break
    return True


class _Found(Enum):
    NOTHING = "nothing"
    DESCRIPTORS = "descriptors"


def _peek(sock: socket.socket, size: int, space: int) -> _Found | int:
    """Return the size of the next message in the queue of a Unix socket, for `recv`, if it has no descriptors.

    A peek takes its own references to descriptors, so dropping those closes nothing: unix(7), MSG_CTRUNC.
    `space` is for credentials, which would count as descriptors without it. Raises OSError, BlockingIOError
    if the queue is empty.
    """
    # Credentials come with each message but not with the end of file, which otherwise looks like an empty
    # message. A stream has no empty messages.
    is_stream = sock.type is socket.SOCK_STREAM
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, not is_stream)
    if is_stream:  # else a peek skips a byte out of band, whose descriptors recv and close free
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    data, ancillary, flags, _ = sock.recvmsg(size, space, _LOOK)
    if flags & socket.MSG_CTRUNC:
        return _Found.DESCRIPTORS
    return len(data) or 1 if data or ancillary else _Found.NOTHING


def has_other_end(fd: int) -> bool:
    """Whether a process at the other end may block a close, even if its maker does not.

    Sockets may linger, and a pipe is locked during a write, whose process may hang in a page fault.
    """
    return target(fd).startswith((SOCKET, PIPE))
