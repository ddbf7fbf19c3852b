"""The descriptor store of a service: what it gave to spawnd to have it back after a restart.

As systemd's: named descriptors, the same open file only once, dropped when their peer
hangs up unless the service said `FDPOLL=0`, handed back after the service's own.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from supervisor.linux.kcmp import kcmp_file
from supervisor.linux.open_files import FILE, identity
from supervisor.notify.foreign import close_foreign, is_file

NAMES_MAX = 128 * 1024 - 4096  # one environment string of the kernel (MAX_ARG_STRLEN) less the variable's own names


class Watcher(Protocol):
    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored descriptor; `file` is the identity of what it refers to, `linux/open_files.py`."""

    name: str
    fd: int
    polled: bool
    file: str


class Store:
    """The stored descriptors of one service, which it owns, in the order in which they came.

    `changed` is called after each one that came or went; `take_changes` tells which.
    """

    def __init__(self, loop: Watcher, changed: Callable[[], None] = lambda: None) -> None:
        self._loop = loop
        self._changed = changed
        self._stored: dict[int, Stored] = {}
        self._changes: dict[int, Stored | None] = {}
        self._by_name: dict[str, list[Stored]] = {}
        self._by_file: dict[str, list[Stored]] = {}
        self._names_size = 0

    def __len__(self) -> int:
        return len(self._stored)

    def entries(self) -> tuple[tuple[str, int], ...]:
        """`(name, descriptor)` of each; the descriptors stay the store's."""
        return tuple((stored.name, stored.fd) for stored in self._stored.values())

    def stored(self) -> tuple[Stored, ...]:
        return tuple(self._stored.values())

    def take_changes(self) -> tuple[list[Stored], list[int]]:
        """What has come since the last call and is still there, and the numbers of what has gone since."""
        changes, self._changes = self._changes, {}
        come = [stored for stored in changes.values() if stored is not None]
        return come, [fd for fd, stored in changes.items() if stored is None]

    def add(self, name: str, fds: Iterable[int], polled: bool, limit: int, names_max: int = NAMES_MAX) -> int:
        """Take over `fds`; returns how many were refused and closed, for want of room.

        `limit` is how many there may be, `names_max` how long all their names together.

        What is there already is closed and counts as stored, whatever its name.
        """
        refused = 0
        unwanted = []
        for fd in fds:
            file = identity(fd)
            if any(kcmp_file(fd, stored.fd) for stored in self._by_file.get(file, ())):
                unwanted.append(fd)
            elif len(self._stored) >= limit or self._names_size + len(name) + 1 > names_max:
                unwanted.append(fd)
                refused += 1
            else:
                # a file cannot hang up, and polling it may have to wait for its file system
                self._keep(Stored(name, fd, polled and not (file.startswith(FILE) and is_file(fd)), file))
        close_foreign(unwanted)
        return refused

    def remove(self, name: str) -> None:
        """Close all of that name."""
        self._drop(list(self._by_name.get(name, ())))

    def clear(self) -> None:
        self._drop(list(self._stored.values()))

    def _keep(self, stored: Stored) -> None:
        if stored.polled:
            try:
                # no event asked for: EPOLLHUP and EPOLLERR come unasked
                self._loop.watch(stored.fd, 0, lambda events: self._hung_up(stored.fd, events))
            except OSError:
                # what epoll does not take, as a memfd, does not hang up
                stored = replace(stored, polled=False)
        self._stored[stored.fd] = stored
        self._by_name.setdefault(stored.name, []).append(stored)
        self._by_file.setdefault(stored.file, []).append(stored)
        self._names_size += len(stored.name) + 1
        self._note(stored.fd, stored)

    def _hung_up(self, fd: int, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self._drop([self._stored[fd]])

    def _drop(self, going: Sequence[Stored]) -> None:
        for stored in going:
            del self._stored[stored.fd]
            for index, key in ((self._by_name, stored.name), (self._by_file, stored.file)):
                _unlist(index, key, stored)
            self._names_size -= len(stored.name) + 1
            if stored.polled:
                self._loop.unwatch(stored.fd)
        close_foreign(stored.fd for stored in going)
        for stored in going:
            self._note(stored.fd, None)

    def _note(self, fd: int, stored: Stored | None) -> None:
        self._changes.pop(fd, None)  # the number may be another's now, which comes last
        self._changes[fd] = stored
        self._changed()


def _unlist(index: dict[Any, list[Stored]], key: object, stored: Stored) -> None:
    index[key].remove(stored)
    if not index[key]:
        del index[key]
