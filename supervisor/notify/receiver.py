"""The receiving end of the notification protocol: one named datagram socket for each service.

The protocol is that of `sd_notify(3)`: a datagram of `KEY=value` lines.  Some carry descriptors into the store:
`FDSTORE=1`, `FDNAME=`, `FDSTOREREMOVE=1`, `FDPOLL=0`.  `BARRIER=1` needs no field: its descriptor is closed once its
message is handled, as any that is not stored, and that is all that its sender waits for.
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
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from supervisor.notify.safe_close import Closer, WhenReaped, has_ended
from supervisor.notify.untrusted import MAX_DESCRIPTORS, is_empty, look_elsewhere, take_elsewhere
from supervisor.printable import encodable

MAX_DATAGRAM = 4096  # bytes, as systemd has it
MAX_NAME = 255  # of a stored descriptor, as systemd has it
DEFAULT_NAME = "stored"

# More than a socket ever holds (net.unix.max_dgram_qlen, 512 under systemd), so that all that a dead
# process said is among them; not without end, or one that never stops sending would keep everybody waiting.
MAX_AT_ONCE = 1024
_UCRED = struct.Struct("=iII")  # pid, uid, gid: struct ucred of socket.h
LONGEST_PATH = 107  # bytes of a Unix socket's path: sun_path less its NUL
# as numbers: to combine two members of an enumeration costs as much as a system call
_TAKE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_LOOK = int(socket.MSG_DONTWAIT | socket.MSG_PEEK)
_TRUNC = int(socket.MSG_TRUNC)
_CARRIES = int(socket.MSG_CTRUNC)
_CREDENTIALS = socket.CMSG_SPACE(_UCRED.size)
_RIGHTS = socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
_PIDFD = socket.CMSG_SPACE(4)
_TIMESPEC = struct.Struct("@ll")  # of the first sort, which has longs on every architecture
_TIMESTAMP = socket.CMSG_SPACE(_TIMESPEC.size)
# <asm-generic/socket.h>
_SO_TIMESTAMPNS = 35  # the kind of what it gives, too
_SO_PASSPIDFD = 76  # Linux 6.5
_SCM_PIDFD = 4  # <linux/socket.h>
_TICK = 10**9 // os.sysconf("SC_CLK_TCK")  # nanoseconds


@dataclass(frozen=True, slots=True)
class Message:
    """The content of one datagram.  Times are seconds; None and False: not said."""

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

    def harmless(self) -> Message:
        """Return the part that also counts from a sender that has ended, of which only the user is known."""
        return Message(ready=self.ready, status=self.status, watchdog=self.watchdog, extend_usec=self.extend_usec)


def parse(datagram: bytes) -> Message:
    """The message in a datagram.  Unknown keys and unusable values are skipped: newer senders must work."""
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
        remove=values.get("FDSTOREREMOVE") == "1" and named,  # without a name it would hit what nobody named
        name=name if named else DEFAULT_NAME,
        poll=values.get("FDPOLL") != "0",
    )


def legal_name(name: str) -> bool:
    """Whether a stored descriptor may have this name: printable ASCII without `:`, 1 to 255 bytes."""
    return 0 < len(name) <= MAX_NAME and all(" " <= c <= "~" and c != ":" for c in name)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


@dataclass(frozen=True, slots=True)
class Notification:
    """A message with its sender's credentials.  Its taker owns `fds` and `pidfd`.

    `carries`: descriptors came along; `fds` are those that were wanted.  `cut` says why it is not whole, '' where it
    is.  The sender may have ended by now, and its pid be another process's.  That is told by `pidfd`, -1 where there
    is none; before Linux 6.5 by `sent`, the time of the message in clock ticks since boot, -1 where that is not told.
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
        """The content, parsed each time: worth it only for a sender that counts."""
        return parse(self.data)

    def close_pidfd(self) -> None:
        """To close it asks nobody: it holds a process that may be dead, and nothing else."""
        if self.pidfd >= 0:
            os.close(self.pidfd)

    def holds_sender(self) -> bool:
        """Whether there is a pidfd, and its process is not reaped: up to now it has had its pid."""
        if self.pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self.pidfd, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it is there, and another user's
        return True


class Want(Enum):
    """The treatment of the descriptors that come along with a message."""

    NOTHING = "nothing"
    VETTED = "vetted"  # received if none of them is of a file system that others serve, else none
    LATER = "later"  # the message stays in its queue, and is looked at again after a while
    ALL = "all"  # of a sender that is trusted


Wants = Callable[[Notification], Want]


def nothing(_notification: Notification) -> Want:
    return Want.NOTHING


class Receiver:
    """The bound `sock` at `path`.  Owns both.

    Descriptors that are not wanted are received by a child, which closes them by its end.  Until that has come no
    further message with descriptors is read: senders of what is slow to close wait in their own queue.
    """

    def __init__(self, path: str, sock: socket.socket, closer: Closer, when_reaped: WhenReaped) -> None:
        self.path = path
        self.on_room: Callable[[], None] = lambda: None  # called when the last child is gone
        self._socket = sock
        self._closer = closer
        self._when_reaped = when_reaped
        self._children: set[int] = set()
        self._is_blocked = False
        # The kernel tells of a sender what shows whether another process has its pid: by a pidfd, else the time.
        self._has_pidfds = _pass_pidfd(sock, False)
        if not self._has_pidfds:
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, True)
        self._room = _CREDENTIALS if self._has_pidfds else _TIMESTAMP + _CREDENTIALS  # and none for a descriptor

    @classmethod
    def bind(cls, path: str, uid: int, closer: Closer, when_reaped: WhenReaped) -> Receiver:
        """Bind a new one, in the place of what an earlier supervisor left there.  Raises OSError.

        `uid` and root may send; who is believed is decided by the credentials.  Everybody can list the
        paths that sockets were bound to (/proc/net/unix), but of this one only its last part.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            with suppress(FileNotFoundError):
                os.unlink(path)
            _bind(sock, path)
            # until here the umask keeps others out
            os.chmod(path, 0o600)
            os.chown(path, uid, -1)
        except BaseException:
            sock.close()
            raise
        return cls(path, sock, closer, when_reaped)

    @classmethod
    def resume(cls, path: str, fd: int, closer: Closer, when_reaped: WhenReaped) -> Receiver:
        """Go on with one that this process has bound in an earlier life; takes `fd` over."""
        return cls(path, socket.socket(fileno=fd), closer, when_reaped)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def is_blocked(self) -> bool:
        """Whether a message has been left in the queue, which is to be read again after `on_room` or a while."""
        return self._is_blocked

    @property
    def has_children(self) -> bool:
        """Whether `on_room` will be called."""
        return bool(self._children)

    def receive_nowait(self, limit: int = MAX_AT_ONCE, wants: Wants = nothing) -> Iterator[Notification]:
        """All notifications at hand, at most `limit`; of one that is not whole `cut` says why, and it has no data."""
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
            yield taken if not taken.cut else replace(taken, data=b"")

    def wait(self, seconds: float) -> bool:
        """Wait until no child is at work, so long for each; whether that is so.  Last words are waited for."""
        self._children = {pid for pid in self._children if not has_ended(pid, seconds)}
        return not self._children

    def settle(self) -> None:
        """Before this process becomes another program: have no child that may still take a message."""
        for pid in self._children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _take(self, found: Notification, wants: Wants) -> Notification | None:
        """Take the next message, with its descriptors where they are wanted.  None: it cannot be taken now."""
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
                    return replace(found, fds=received.fds, pidfd=received.pidfd)
                found = replace(found, cut="there was no room for its descriptors")
            with self._passing_pidfd():
                pid, is_taken, pidfd = take_elsewhere(self._socket.fileno())
        except OSError:  # no child is to be had
            return None
        self._work(pid)
        found = replace(found, pidfd=pidfd)
        if is_taken:
            return found
        found.close_pidfd()
        return None  # what is still in the queue is acted upon when it is read again

    def _take_plain(self, found: Notification) -> Notification:
        """Take the next message, which has no descriptors: the kernel finds room for a pidfd of its sender.

        It is asked for that here and where all descriptors are received: else one of them would get into the room.
        """
        if not self._has_pidfds:
            self._socket.recv(1, _TAKE)
            return found
        with self._passing_pidfd():
            ancillary = self._socket.recvmsg(0, _CREDENTIALS + _PIDFD, _TAKE)[1]
        return replace(found, pidfd=_unpack(ancillary).pidfd)

    def _receive(self) -> _Ancillary | None:
        """Receive the next message, with its descriptors.  None, and it is still there: there was no room for all.

        The kernel closes a descriptor at once if it finds no number for it, so the message keeps them until all have
        one.
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
        """With the kernel adding a pidfd of the sender to what is received, where it can."""
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
        with suppress(OSError):  # whatever else somebody has put there
            os.unlink(self.path)
        self.on_room = lambda: None
        # nothing more comes, and what has come must not go with the last close here: that might wait
        self._socket.shutdown(socket.SHUT_RD)
        if is_empty(self._socket):
            self._socket.close()
        else:
            self._closer.close([self._socket.detach()])


def _pass_pidfd(sock: socket.socket, yes: bool) -> bool:
    """Have the kernel add a pidfd of the sender or not; returns whether it can."""
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
    """Facts from the kernel beside a message; -1 for an unknown one."""

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
            pidfd = max(-1, *struct.unpack("=i", data[:4]))  # an errno where there is none
        elif kind == socket.SCM_RIGHTS:
            fds.extend(fd for (fd,) in struct.iter_unpack("=i", data[: len(data) // 4 * 4]))
        elif kind == _SO_TIMESTAMPNS:
            sent = _ticks_since_boot(*_TIMESPEC.unpack(data[: _TIMESPEC.size]))
    return _Ancillary(pid, uid, tuple(fds), pidfd, sent)


def _ticks_since_boot(seconds: int, nanoseconds: int) -> int:
    """A time of the day of a moment ago in clock ticks since boot, as proc(5) has start times, rounded up."""
    ago = time.time_ns() - (seconds * 10**9 + nanoseconds)
    return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ago) // _TICK + 1
