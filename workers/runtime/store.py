"""What a worker says to spawnd, and the descriptors that it keeps in spawnd's store.

A descriptor is spawnd's as soon as it is in the queue of the notification socket, whatever
becomes of this process.  The queue is short, so a worker waits for room, a while: a spawnd that hangs
or is gone keeps no worker from its work.  What could not be stored then is stored as soon as there is a spawnd
again, who may have lost what was in the queue of the one before: all is sent once more, and what
is there already is not kept twice.
"""

from __future__ import annotations

import os
import select
import socket
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop
from supervisor.notify.protocol import MAX_DESCRIPTORS
from workers.runtime.rebinding import Rebinding

PATIENCE_MS = 500  # for room in the queue, before the worker goes on without
RECONNECT = 0.1  # seconds until it is looked again whether there is a spawnd
LASTING = ("READY", "STATUS")  # what the next spawnd is to know, too, who may never have heard it
_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

Holdings = Iterable[tuple[Sequence[int], bool]]


class StoreClient:
    """Speaks to the notification socket at `address`; with none, nothing is said and nothing stored.

    `names` tells what is to be in the store, `holdings(name)` the descriptors of one, which stay the
    worker's, with whether spawnd is to drop those that hang up.  Names are not to be used again.
    """

    def __init__(
        self,
        loop: Loop,
        address: str,
        names: Callable[[], Iterable[str]],
        holdings: Callable[[str], Holdings],
    ) -> None:
        self._loop = loop
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._names = names
        self._holdings = holdings
        self._socket: socket.socket | None = None
        self._waits_for_room = False
        self._hangs = False  # nothing has been read since it was waited for in vain
        # what could not be sent, the first of these first
        self._unsaid: dict[str, None] = {}
        self._undropped: dict[str, None] = {}
        self._unsent: dict[str, None] = {}
        self._sent: set[int] = set()  # of the first of them, whose descriptors may be more than there is room for
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
        """Whether there is something that spawnd ought to have and has not."""
        return bool(self._unsent) or (bool(self._address) and self._socket is None)

    def keep(self, name: str, fds: Sequence[int], polled: bool) -> None:
        """Store descriptors under a name: before this returns, unless spawnd is gone or hangs."""
        if not self._address:
            return
        if not self._send(_keep_message(name, polled), fds, 0 if self._hangs else PATIENCE_MS):
            if self._socket is not None and not self._hangs:
                log.warning("spawnd does not take what is to be stored; going on without")
                self._hangs = True
            self._unsent[name] = None
            self._sent.difference_update(fds)  # numbers that were another's
            self._wait_for_room()

    def drop(self, name: str) -> None:
        """Have all of that name forgotten."""
        if next(iter(self._unsent), None) == name:
            self._sent.clear()
        self._unsent.pop(name, None)
        if self._address and (self._waits_for_room or not self._send(_drop_message(name))):
            self._undropped[name] = None
            self._wait_for_room()

    def say(self, line: str) -> None:
        """Say something, as `READY=1`, as soon as there is room."""
        key = line.partition("=")[0]
        if key in LASTING:
            self._lasting[key] = line
        if not self._send(line.encode()) and self._socket is not None:
            self._unsaid[line] = None
            self._wait_for_room()

    def finish(self) -> None:
        """Before the end of this process: wait a while for all to be stored."""
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
        """Hear of the end of the spawnd that started this process; of later ones, when the next one is there."""
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
            self._unsent = dict.fromkeys(self._names())
            self._unsaid.update(dict.fromkeys(self._lasting.values()))
            notice("there is a spawnd again: storing what belongs to %d names", len(self._unsent))
            self._wait_for_room()

    def _send(self, message: bytes, fds: Sequence[int] = (), patience_ms: int = 0) -> bool:
        """Whether it was sent; if not, nobody is there, or there is no room within that time."""
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
        """Nobody is there any more, and nobody will read what was in the queue."""
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
        """Send what there is room for."""
        self._hangs = False
        sent = (
            _send_each(self._unsaid, lambda line: self._send(line.encode()))
            and _send_each(self._undropped, lambda name: self._send(_drop_message(name)))
            and _send_each(self._unsent, self._send_all)
        )
        if sent:
            self._end_wait()

    def _send_all(self, name: str) -> bool:
        for fds, polled in self._holdings(name):
            message = _keep_message(name, polled)
            left = [fd for fd in fds if fd not in self._sent]
            for at in range(0, len(left), MAX_DESCRIPTORS):
                some = left[at : at + MAX_DESCRIPTORS]
                if not self._send(message, some):
                    return False
                self._sent.update(some)
        self._sent.clear()
        return True


def _send_each(names: dict[str, None], send: Callable[[str], bool]) -> bool:
    """Send what the names stand for, as long as there is room, and take out those that were sent; whether all were."""
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
