"""Copies of sockets that systemd keeps, for the case that spawnd and their service die together.

systemd hands them to the next spawnd as sd_listen_fds(3) has it.  Their names are short
numbers, for one environment string has to hold all of them; what they are is known by their
identity.  Each message has one name and so one descriptor, and systemd's queue is short:
what has no room waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from supervisor.linux.open_files import identity
from supervisor.log.logger import log
from supervisor.notify.sender import Sender

RETRY = 0.05  # seconds until a full queue of systemd is tried again
TRIES = 200  # in a row: somebody is not there at all
BATCH = 64  # messages in a turn of the loop


class Clock(Protocol):
    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class SystemdStore:
    """The descriptors stay their owners'.  `names` are those that systemd has already, by identity.

    Where `sender` leads nowhere, nothing is kept.
    """

    def __init__(self, loop: Clock, sender: Sender, names: Mapping[str, str]) -> None:
        self.names = dict(names)
        self._loop = loop
        self._sender = sender
        self._wanted: dict[str, dict[str, int]] = {}  # descriptors by identity, by owner
        self._next = 1 + max((int(name) for name in names.values() if name.isdecimal()), default=0)
        self._untold: dict[str, None] = {}  # identities of which systemd is to be told, in order
        self._tries = TRIES
        self._waits = False

    @property
    def is_used(self) -> bool:
        """Whether there is a systemd that keeps descriptors."""
        return self._sender.leads_somewhere

    def want(self, owner: str, sockets: Mapping[str, int]) -> None:
        """These are all the sockets that `owner` has now, by identity."""
        before = self._wanted.get(owner, {})
        if self._sender.leads_somewhere and sockets != before:
            self._wanted[owner] = dict(sockets)
            self._untold |= dict.fromkeys([*before, *sockets])
            self._flush()

    def drop_unwanted(self) -> None:
        """All owners have been heard: what nobody wants may go."""
        self._untold |= dict.fromkeys(self.names)
        self._flush()

    def _flush(self) -> None:
        if self._waits:
            return
        for _ in range(BATCH):
            if not self._untold:
                return
            name = next(iter(self._untold))
            if not self._tell(name):
                self._tries -= 1
                break
            del self._untold[name]
            self._tries = TRIES
        if self._tries == 0:
            log.warning("systemd does not answer: it keeps no sockets")
            self._untold.clear()
            self._tries = TRIES
        elif self._untold:
            self._waits = True
            self._loop.call_later(RETRY, self._again)

    def _again(self) -> None:
        self._waits = False
        self._flush()

    def _tell(self, name: str) -> bool:
        """Have systemd keep what is wanted and not kept, drop what is kept and not wanted; False: it has no room."""
        fd = next((sockets[name] for sockets in self._wanted.values() if name in sockets), None)
        number = self.names.get(name)
        if fd is not None and number is None and _is(fd, name):
            if not self._sender.send_nowait("FDSTORE=1", f"FDNAME={self._next}", "FDPOLL=0", fds=[fd]):
                return False
            self.names[name] = str(self._next)
            self._next += 1
        elif fd is None and number is not None:
            if not self._sender.send_nowait("FDSTOREREMOVE=1", f"FDNAME={number}"):
                return False
            del self.names[name]
        return True


def _is(fd: int, name: str) -> bool:
    """Whether the descriptor is what it was: it may have been closed since."""
    try:
        return identity(fd) == name
    except OSError:
        return False
