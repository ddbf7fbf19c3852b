"""The receiving end of a notification socket, in the place of spawnd: a real receiver and a real store."""

from __future__ import annotations

from pathlib import Path
from select import EPOLLIN

from supervisor.loop.loop import Loop
from supervisor.notify.receiver import Receiver, Want
from supervisor.notify.store import Store
from tests.unit.closing import PatientCloser, Reaper, bind_receiver

LIMIT = 1 << 20


class FakeSpawnd:
    """Owns the socket at `path` and the store.  `said` are the lines of all messages that store nothing."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self.path = path
        self.loop = loop
        self.store = Store(loop, PatientCloser())
        self.reaper = Reaper()
        self.said: list[str] = []
        self.messages = 0
        self._receiver: Receiver | None = None
        self.listen()

    def listen(self) -> None:
        """Bind the socket, in the place of one that was lost."""
        self._receiver = bind_receiver(self.path, 0, self.reaper)
        self.hear()

    def hear(self) -> None:
        assert self._receiver is not None
        self.loop.watch(self._receiver.fileno(), EPOLLIN, lambda _events: self.take())

    @property
    def receiver(self) -> Receiver:
        assert self._receiver is not None
        return self._receiver

    def fileno(self) -> int:
        return self.receiver.fileno()

    def hang(self) -> None:
        """Read nothing any more, until `hear`."""
        assert self._receiver is not None
        self.loop.unwatch(self._receiver.fileno())

    def lose(self) -> None:
        """Be killed: what is in the queue is lost, the socket's file stays."""
        assert self._receiver is not None
        self.loop.unwatch(self._receiver.fileno())
        self.path.rename(self.path.with_suffix(".old"))
        self._receiver.close()
        self.path.with_suffix(".old").rename(self.path)
        self._receiver = None

    def take(self, limit: int = 1024) -> None:
        assert self._receiver is not None
        self.reaper.look()
        for notification in self._receiver.receive_nowait(limit, lambda _notification: Want.ALL):
            notification.close_pidfd()
            self.messages += 1
            message = notification.message
            if message.remove:
                self.store.remove(message.name)
            if message.store:
                self.store.add(message.name, notification.fds, message.poll, LIMIT, trusted=True)
            if not message.remove and not message.store:
                self.said += notification.data.decode().split("\n")

    def names(self) -> list[str]:
        return [stored.name for stored in self.store.stored()]

    def close(self) -> None:
        if self._receiver is not None:
            self.loop.unwatch(self._receiver.fileno())
            self._receiver.close()
        self.store.clear()
        self.reaper.settle()
