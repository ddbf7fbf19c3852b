"""A worker's messages to spawnd, and the descriptors that it keeps in spawnd's store.

A descriptor belongs to spawnd once it is in the queue of the notification socket, whatever happens to this
process. The queue is short, so a worker waits a while for room; a spawnd that hangs or is gone does not stop
a worker's work. Descriptors that could not be stored are stored as soon as there is a spawnd again. That
spawnd may have lost the queue of its predecessor, so everything is sent again; the store keeps nothing twice.
"""

from __future__ import annotations

import os
import select
import socket
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from supervisor.linux.inotify import (
    IN_CLOEXEC,
    IN_CREATE,
    IN_NONBLOCK,
    IN_ONLYDIR,
    inotify_add_watch,
    inotify_init1,
    parse_events,
)
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop
from supervisor.notify.untrusted import MAX_DESCRIPTORS
from supervisor.printable import count

PATIENCE_MS = 500  # to wait for room in the queue, before the worker goes on without
RECONNECT = 0.1  # seconds until the next check for a spawnd
LASTING = ("READY", "STATUS")  # messages that a new spawnd gets as well, because it may never have received them
_BUFFER = 16384  # bytes of inotify events
_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

# descriptors, and whether spawnd has to drop those that hang up
Holdings = Iterable[tuple[Sequence[int], bool]]
GetHoldings = Callable[[], Holdings]


class StoreClient:
    """Sender to the notification socket at `address`; without one, it sends and stores nothing.

    `everything` returns the names that belong in the store, each with a function that returns its
    descriptors, which the worker still owns. Names must not be reused.
    """

    def __init__(
        self, loop: Loop, address: str, everything: Callable[[], Iterable[tuple[str, GetHoldings]]]
    ) -> None:
        self._loop = loop
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._everything = everything
        self._socket: socket.socket | None = None
        self._waits_for_room = False
        self._hangs = False  # nothing has been read since a wait for room failed
        # unsent messages, in the order of the attempts
        self._unsaid: dict[str, None] = {}
        self._undropped: dict[str, None] = {}
        self._unsent: dict[str, GetHoldings] = {}
        self._sent: set[int] = set()  # of the first of them, which may have more descriptors than fit into the queue
        self._lasting: dict[str, str] = {}
        self._parent = -1
        self._rebinding: Rebinding | None = None
        if address:
            if address.startswith("/"):
                self._rebinding = Rebinding(loop, address, self._rebound)
            self._connect()
            self._watch_parent()

    @property
    def is_behind(self) -> bool:
        """Whether spawnd lacks something that should be in the store."""
        return bool(self._unsent) or (bool(self._address) and self._socket is None)

    def keep(self, name: str, fds: Sequence[int], holdings: GetHoldings, polled: bool) -> None:
        """Store descriptors under a name before this returns, unless spawnd is gone or hangs.

        `holdings` returns all descriptors of the name, including these, in case they have to be sent later.
        """
        if not self._address:
            return
        if not self._send(_keep_message(name, polled), fds, 0 if self._hangs else PATIENCE_MS):
            if self._socket is not None and not self._hangs:
                log.warning("spawnd does not take what is to be stored; going on without")
                self._hangs = True
            self._unsent[name] = holdings
            self._sent.difference_update(fds)  # numbers of earlier descriptors
            self._wait_for_room()

    def drop(self, name: str) -> None:
        """Have spawnd drop all descriptors of that name."""
        if next(iter(self._unsent), None) == name:
            self._sent.clear()
        self._unsent.pop(name, None)
        if self._address and (self._waits_for_room or not self._send(_drop_message(name))):
            self._undropped[name] = None
            self._wait_for_room()

    def say(self, line: str) -> None:
        """Send a line such as `READY=1` as soon as there is room."""
        key = line.partition("=")[0]
        if key in LASTING:
            self._lasting[key] = line
        if not self._send(line.encode()) and self._socket is not None:
            self._unsaid[line] = None
            self._wait_for_room()

    def finish(self) -> None:
        """Wait a while for everything to be stored, before this process ends."""
        while self._waits_for_room and self._has_room(PATIENCE_MS):
            self._flush()
        if self.is_behind:
            log.warning("not all that is held is in spawnd's store: it does not take any more")

    def close(self) -> None:
        self._disconnect()
        self._unwatch_parent()
        if self._rebinding is not None:
            self._rebinding.close()

    def _watch_parent(self) -> None:
        """Watch for the end of the spawnd that started this process.

        The end of a later one shows when its successor appears.
        """
        with suppress(OSError):  # it is gone already, or in another PID namespace
            self._parent = os.pidfd_open(os.getppid())
            self._loop.watch(self._parent, select.EPOLLIN, lambda _events: self._parent_ended())

    def _parent_ended(self) -> None:
        self._unwatch_parent()
        if self._socket is not None:
            self._lost("it has ended")

    def _rebound(self) -> None:
        if self._socket is not None:
            self._lost("there is another one")

    def _unwatch_parent(self) -> None:
        if self._parent >= 0:
            self._loop.unwatch(self._parent)
            os.close(self._parent)
            self._parent = -1

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._end_wait()
            self._socket.close()
            self._socket = None

    def _connect(self) -> None:
        if self._rebinding is not None:
            self._rebinding.forget()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.connect(self._address)
        except OSError:
            sock.close()
            self._loop.call_later(RECONNECT, self._reconnect)
        else:
            self._socket = sock

    def _reconnect(self) -> None:
        self._connect()
        if self._socket is not None:
            self._unsent = dict(self._everything())
            self._unsaid.update(dict.fromkeys(self._lasting.values()))
            notice("spawnd is back: storing what belongs to %s", count(len(self._unsent), "name"))
            self._wait_for_room()

    def _send(self, message: bytes, fds: Sequence[int] = (), patience_ms: int = 0) -> bool:
        """Return whether the message was sent; if not, there is no spawnd, or no room within that time."""
        if self._socket is None:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        try:
            try:
                self._socket.sendmsg([message], rights, _FLAGS)
            except BlockingIOError:
                if not patience_ms or not self._has_room(patience_ms):
                    return False
                self._socket.sendmsg([message], rights, _FLAGS)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lost(error.strerror or str(error))
            return False
        return True

    def _has_room(self, patience_ms: int) -> bool:
        if self._socket is None:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(patience_ms))

    def _lost(self, why: str) -> None:
        """Give up the connection: spawnd is gone, and nothing will read the queue."""
        log.warning("spawnd does not answer (%s); going on without", why)
        self._disconnect()
        self._unsaid.clear()
        self._sent.clear()
        self._hangs = False
        self._loop.call_later(RECONNECT, self._reconnect)

    def _wait_for_room(self) -> None:
        if self._socket is not None and not self._waits_for_room:
            self._waits_for_room = True
            self._loop.watch(self._socket.fileno(), select.EPOLLOUT, lambda _events: self._flush())

    def _end_wait(self) -> None:
        if self._socket is not None and self._waits_for_room:
            self._waits_for_room = False
            self._loop.unwatch(self._socket.fileno())

    def _flush(self) -> None:
        """Send as many messages as fit."""
        self._hangs = False
        sent = (
            _send_each(self._unsaid, lambda line: self._send(line.encode()))
            and _send_each(self._undropped, lambda name: self._send(_drop_message(name)))
            and _send_each(self._unsent, self._send_all)
        )
        if sent:
            self._end_wait()

    def _send_all(self, name: str) -> bool:
        for fds, polled in self._unsent[name]():
            message = _keep_message(name, polled)
            left = [fd for fd in fds if fd not in self._sent]
            for at in range(0, len(left), MAX_DESCRIPTORS):
                some = left[at : at + MAX_DESCRIPTORS]
                if not self._send(message, some):
                    return False
                self._sent.update(some)
        self._sent.clear()
        return True


class Rebinding:
    """Calls `rebound` when a new file is at `path`; never if that cannot be watched. Owns its descriptor.

    A client of a socket that was bound anew is still connected to the old one; unix(7) has no hang-up for
    datagram sockets.
    """

    def __init__(self, loop: Loop, path: str, rebound: Callable[[], None]) -> None:
        self._loop = loop
        self._name = os.path.basename(path)
        self._rebound = rebound
        self._fd = -1
        with suppress(OSError):  # no free instance: the failure of the next message tells instead
            self._fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)
            inotify_add_watch(self._fd, os.path.dirname(path) or ".", IN_CREATE | IN_ONLYDIR)
            loop.watch(self._fd, select.EPOLLIN, lambda _events: self._take())

    def forget(self) -> None:
        """Ignore the files that have appeared until now."""
        self._has_come()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _take(self) -> None:
        if self._has_come():
            self._rebound()

    def _has_come(self) -> bool:
        """Read all events; return whether a new file may have appeared, also if events were lost."""
        found = False
        with suppress(BlockingIOError):
            while self._fd >= 0:
                events = parse_events(os.read(self._fd, _BUFFER))
                found = found or any(name == self._name or wd < 0 for wd, _mask, name in events)
        return found


def _send_each(names: dict[str, Any], send: Callable[[str], bool]) -> bool:
    """Send messages while there is room, and remove the sent ones; return whether all were sent."""
    while names:
        name = next(iter(names))
        if not send(name):
            return False
        names.pop(name, None)
    return True


def _keep_message(name: str, polled: bool) -> bytes:
    return f"FDSTORE=1\nFDNAME={name}".encode() + (b"" if polled else b"\nFDPOLL=0")


def _drop_message(name: str) -> bytes:
    return f"FDSTOREREMOVE=1\nFDNAME={name}".encode()
