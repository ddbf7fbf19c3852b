"""The receiving end of the notification protocol: one named datagram socket per service.

The protocol is that of `sd_notify(3)`: a datagram of `KEY=value` lines. Some messages carry descriptors for the store:
`FDSTORE=1`, `FDNAME=`, `FDSTOREREMOVE=1`, `FDPOLL=0`. `BARRIER=1` needs no field: like every descriptor that is not
stored, its descriptor is closed once the message is handled, and its sender waits for nothing else. `X_SPAWND_BUSY=` is
not of that protocol: 1 forbids spawnd to put the service to sleep, and 0 permits it again.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import NamedTuple

from supervisor.notify.safe_close import Closer, WhenReaped, has_ended
from supervisor.notify.untrusted import MAX_DESCRIPTORS, is_empty, look_elsewhere, take_elsewhere
from supervisor.printable import encodable

MAX_DATAGRAM = 4096  # bytes, the same limit as in systemd
MAX_NAME = 255  # for the name of a stored descriptor, the same limit as in systemd
DEFAULT_NAME = "stored"

# More than a socket can hold (net.unix.max_dgram_qlen, 512 under systemd), so that all messages of a dead
# process are among them; yet limited, so that an endless sender does not delay the others.
MAX_AT_ONCE = 1024
_UCRED = struct.Struct("=iII")  # pid, uid, gid: struct ucred of socket.h
LONGEST_PATH = 107  # bytes of a Unix socket's path: sun_path without its NUL
# numbers, because combining two members of an enumeration costs as much as a system call
_TAKE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_LOOK = int(socket.MSG_DONTWAIT | socket.MSG_PEEK)
_TRUNC = int(socket.MSG_TRUNC)
_CARRIES = int(socket.MSG_CTRUNC)
_CREDENTIALS = socket.CMSG_SPACE(_UCRED.size)
_RIGHTS = socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
_PIDFD = socket.CMSG_SPACE(4)
_TIMESPEC = struct.Struct("@ll")  # of SO_TIMESTAMPNS_OLD, with longs on every architecture
_TIMESTAMP = socket.CMSG_SPACE(_TIMESPEC.size)
# <asm-generic/socket.h>
_SO_TIMESTAMPNS = 35  # also the type of the ancillary data
_SO_PASSPIDFD = 76  # Linux 6.5
_SCM_PIDFD = 4  # <linux/socket.h>
_TICK = 10**9 // os.sysconf("SC_CLK_TCK")  # nanoseconds


class Message(NamedTuple):
    """The content of one datagram. Times are seconds; None and False mean that a key is missing."""

    ready: bool = False
    reloading: bool = False
    status: str | None = None
    watchdog: bool = False
    watchdog_trigger: bool = False
    extend_usec: int | None = None
    store: bool = False
    remove: bool = False
    name: str = DEFAULT_NAME
    poll: bool = True
    busy: bool | None = None

    def harmless(self) -> Message:
        """Return the part that also counts from a sender that has ended, of which only the user is known."""
        return Message(
            ready=self.ready,
            status=self.status,
            watchdog=self.watchdog,
            extend_usec=self.extend_usec,
            busy=self.busy,
        )


def parse(datagram: bytes) -> Message:
    """Return the message in a datagram. Unknown keys and invalid values are skipped, for newer senders."""
    values: dict[str, str] = {}
    for line in datagram.decode(errors="surrogateescape").split("\n"):
        key, equals, value = line.partition("=")
        if equals:
            values[key] = value
    name = values.get("FDNAME", "")
    named = legal_name(name)
    return Message(
        ready=values.get("READY") == "1",
        reloading=values.get("RELOADING") == "1",
        status=encodable(values["STATUS"]) if "STATUS" in values else None,
        watchdog=values.get("WATCHDOG") == "1",
        watchdog_trigger=values.get("WATCHDOG") == "trigger",
        extend_usec=_number(values.get("EXTEND_TIMEOUT_USEC")),
        store=values.get("FDSTORE") == "1",
        remove=values.get("FDSTOREREMOVE") == "1" and named,  # not for the default name
        name=name if named else DEFAULT_NAME,
        poll=values.get("FDPOLL") != "0",
        busy={"1": True, "0": False}.get(values.get("X_SPAWND_BUSY", "")),
    )


def legal_name(name: str) -> bool:
    """Whether a stored descriptor may have this name: printable ASCII without `:`, 1 to 255 bytes."""
    return 0 < len(name) <= MAX_NAME and all(" " <= c <= "~" and c != ":" for c in name)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


class Notification(NamedTuple):
    """A message with its sender's credentials. The receiver of this object owns `fds` and `pidfd`.

    `carries`: the message had descriptors; `fds` are the wanted ones. `cut` says why the message is
    incomplete, or is ''. The sender may have ended by now, and its pid may belong to another process.
    `pidfd`, -1 if there is none, shows that. Before Linux 6.5 `sent` does: the time of the message in clock
    ticks since boot, -1 if unknown.
    """

    data: bytes
    pid: int
    uid: int
    fds: tuple[int, ...] = ()
    carries: bool = False
    pidfd: int = -1
    sent: int = -1
    cut: str = ""

    @property
    def message(self) -> Message:
        """The content. It is parsed with each access, which pays only for a trusted sender."""
        return parse(self.data)

    def close_pidfd(self) -> None:
        """Close the pidfd, which never blocks: it only refers to a process, perhaps a dead one."""
        if self.pidfd >= 0:
            os.close(self.pidfd)

    def holds_sender(self) -> bool:
        """Whether the pidfd exists and its process is not reaped, so that the sender has had its pid until now."""
        if self.pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self.pidfd, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # the process exists, and belongs to another user
        return True


class Want(Enum):
    """The treatment of descriptors in a message."""

    NOTHING = "nothing"
    VETTED = "vetted"  # received if none is of a file system that a user-space or remote server provides
    LATER = "later"  # the message stays in the queue for a while
    ALL = "all"  # from a trusted sender


Wants = Callable[[Notification], Want]


def nothing(_notification: Notification) -> Want:
    return Want.NOTHING


class Receiver:
    """The bound `sock` at `path`; owns both.

    A child receives unwanted descriptors and closes them by its exit. Until the child has ended, no further message
    with descriptors is read, so senders of descriptors that are slow to close wait in their own queue.
    """

    def __init__(self, path: str, sock: socket.socket, closer: Closer, when_reaped: WhenReaped) -> None:
        self.path = path
        self.on_room: Callable[[], None] = lambda: None  # called when the last child has ended
        self._socket = sock
        self._closer = closer
        self._when_reaped = when_reaped
        self._children: set[int] = set()
        self._is_blocked = False
        # Either the pidfd of a sender or the time of its message shows whether its pid was reused.
        self._has_pidfds = _pass_pidfd(sock, False)
        if not self._has_pidfds:
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, True)
        self._room = _CREDENTIALS if self._has_pidfds else _TIMESTAMP + _CREDENTIALS  # no room for a descriptor

    @classmethod
    def bind(cls, path: str, uid: int, closer: Closer, when_reaped: WhenReaped) -> Receiver:
        """Bind a new socket, in place of one from an earlier supervisor. Raises OSError.

        `uid` and root may send; the credentials decide whether a message is trusted. Any user can list the
        paths of bound sockets (/proc/net/unix), but sees only the last part of this one.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            with suppress(FileNotFoundError):
                os.unlink(path)
            _bind(sock, path)
            # the umask has denied access until here
            os.chmod(path, 0o600)
            os.chown(path, uid, -1)
        except BaseException:
            sock.close()
            raise
        return cls(path, sock, closer, when_reaped)

    @classmethod
    def resume(cls, path: str, fd: int, closer: Closer, when_reaped: WhenReaped) -> Receiver:
        """Take over the socket `fd`, which this process bound before its exec."""
        return cls(path, socket.socket(fileno=fd), closer, when_reaped)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def is_blocked(self) -> bool:
        """Whether a message was left in the queue, to be read again after `on_room` or a while."""
        return self._is_blocked

    @property
    def has_children(self) -> bool:
        """Whether `on_room` will be called."""
        return bool(self._children)

    def receive_nowait(self, limit: int = MAX_AT_ONCE, wants: Wants = nothing) -> Iterator[Notification]:
        """Yield the queued notifications, at most `limit`; an incomplete one has no data, and `cut` says why."""
        self._is_blocked = False
        for _ in range(limit):
            try:
                data, ancillary, flags, _address = self._socket.recvmsg(MAX_DATAGRAM, self._room, _LOOK)
            except BlockingIOError:
                return
            of = _unpack(ancillary)
            found = Notification(
                data, of.pid, of.uid, carries=bool(flags & _CARRIES), sent=of.sent, cut=_why_cut(flags, of.pid)
            )
            if found.carries:
                taken = self._take(found, wants) if self.wait(0) else None
            else:
                taken = self._take_plain(found)
            if taken is None:
                self._is_blocked = True
                return
            yield taken if not taken.cut else taken._replace(data=b"")

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for each child to end; return whether all have. Used for a process's last messages."""
        self._children = {pid for pid in self._children if not has_ended(pid, seconds)}
        return not self._children

    def settle(self) -> None:
        """Kill the children before an exec of this process: none of them may take a message later."""
        for pid in self._children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _take(self, found: Notification, wants: Wants) -> Notification | None:
        """Take the next message, with its descriptors if they are wanted; None if it cannot be taken now."""
        want = Want.NOTHING if found.cut else wants(found)
        if want is Want.LATER:
            return None
        try:
            if want is Want.VETTED:
                pid, seen = look_elsewhere(self._socket.fileno())
                self._work(pid)
                if seen is None:
                    return None
                want = Want.ALL if self._closer.file_systems.have_all(seen) else Want.NOTHING
            if want is Want.ALL:
                received = self._receive()
                if received is not None:
                    return found._replace(fds=received.fds, pidfd=received.pidfd)
                found = found._replace(cut="there was no room for its descriptors")
            with self._passing_pidfd():
                pid, is_taken, pidfd = take_elsewhere(self._socket.fileno())
        except OSError:  # no child can be forked
            return None
        self._work(pid)
        found = found._replace(pidfd=pidfd)
        if is_taken:
            return found
        found.close_pidfd()
        return None  # the message is still in the queue, and is handled when it is read again

    def _take_plain(self, found: Notification) -> Notification:
        """Take the next message, which has no descriptors, so that the kernel has room for a pidfd of its sender.

        A pidfd is requested only here and where all descriptors are received: elsewhere a descriptor could
        take its room.
        """
        if not self._has_pidfds:
            self._socket.recv(1, _TAKE)
            return found
        with self._passing_pidfd():
            ancillary = self._socket.recvmsg(0, _CREDENTIALS + _PIDFD, _TAKE)[1]
        return found._replace(pidfd=_unpack(ancillary).pidfd)

    def _receive(self) -> _Ancillary | None:
        """Receive the next message with its descriptors; None, and the message stays, if there is no room for all.

        The kernel closes a descriptor at once if there is no free number for it. So the message is peeked at
        until all of its descriptors have a number.
        """
        with self._passing_pidfd():
            _data, ancillary, flags, _ = self._socket.recvmsg(
                0, self._room + _RIGHTS + _PIDFD, _LOOK | socket.MSG_CMSG_CLOEXEC
            )
        found = _unpack(ancillary)
        if flags & _CARRIES:
            for fd in (*found.fds, found.pidfd):
                if fd >= 0:
                    os.close(fd)
            return None
        self._socket.recv(1, _TAKE)
        return found

    @contextmanager
    def _passing_pidfd(self) -> Iterator[None]:
        """Have the kernel add a pidfd of the sender to received messages, if it can."""
        if not self._has_pidfds:
            yield
            return
        _pass_pidfd(self._socket, True)
        try:
            yield
        finally:
            _pass_pidfd(self._socket, False)

    def _work(self, pid: int) -> None:
        self._children.add(pid)
        self._when_reaped(pid, lambda: self._ended(pid))

    def _ended(self, pid: int) -> None:
        self._children.discard(pid)
        if not self._children:
            self.on_room()

    def close(self) -> None:
        with suppress(OSError):  # or any other file at the path
            os.unlink(self.path)
        self.on_room = lambda: None
        # Stop further messages. A last close here could block on the content of queued ones.
        self._socket.shutdown(socket.SHUT_RD)
        if is_empty(self._socket):
            self._socket.close()
        else:
            self._closer.close([self._socket.detach()])


def _pass_pidfd(sock: socket.socket, yes: bool) -> bool:
    """Enable or disable pidfds of senders; return whether the kernel supports them."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSPIDFD, yes)
    except OSError:  # before Linux 6.5
        return False
    return True


def _bind(sock: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def _why_cut(flags: int, pid: int) -> str:
    if flags & _TRUNC:
        return f"it is longer than {MAX_DATAGRAM} bytes"
    return "" if pid > 0 else "its sender is in a PID namespace that is out of sight"


class _Ancillary(NamedTuple):
    """Ancillary data of a message; -1 for unknown values."""

    pid: int = -1
    uid: int = -1
    fds: tuple[int, ...] = ()
    pidfd: int = -1
    sent: int = -1


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> _Ancillary:
    pid = uid = pidfd = sent = -1
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS:
            pid, uid, _gid = _UCRED.unpack(data[: _UCRED.size])
        elif kind == _SCM_PIDFD and len(data) >= 4:
            pidfd = max(-1, *struct.unpack("=i", data[:4]))  # a negative errno if there is no pidfd
        elif kind == socket.SCM_RIGHTS:
            fds.extend(fd for (fd,) in struct.iter_unpack("=i", data[: len(data) // 4 * 4]))
        elif kind == _SO_TIMESTAMPNS:
            sent = _ticks_since_boot(*_TIMESPEC.unpack(data[: _TIMESPEC.size]))
    return _Ancillary(pid, uid, tuple(fds), pidfd, sent)


def _ticks_since_boot(seconds: int, nanoseconds: int) -> int:
    """Convert a recent time of day to clock ticks since boot, the unit of start times in proc(5), rounded up."""
    ago = time.time_ns() - (seconds * 10**9 + nanoseconds)
    return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ago) // _TICK + 1
