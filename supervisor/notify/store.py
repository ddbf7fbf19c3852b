"""The descriptor store of a service: descriptors that it gives to spawnd to get them back after a restart.

It works like systemd's: descriptors have names, and the same open file is stored only once. A descriptor is dropped
when its peer hangs up, unless the service said `FDPOLL=0`. The service gets them after its own descriptors.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from supervisor.linux.descriptors import Order, kcmp_files
from supervisor.linux.open_files import identity
from supervisor.notify.safe_close import Closer, Origin
from supervisor.notify.untrusted import EPOLL, has_other_end, may_be_polled, target

NAMES_MAX = 128 * 1024 - 4096  # one environment string (MAX_ARG_STRLEN), less the variable's name


class Watcher(Protocol):
    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...


class Stored(NamedTuple):
    """A stored descriptor; `file` is the identity of its open file, see `linux/open_files.py`.

    `trusted`: its maker does nothing to block a close.
    """

    name: str
    fd: int
    polled: bool
    file: str
    trusted: bool = False


class Store:
    """The stored descriptors of one service, in order of arrival; owns them.

    `changed` is called after each arrival or removal; `take_changes` returns them.
    """

    def __init__(self, loop: Watcher, closer: Closer, changed: Callable[[], None] = lambda: None) -> None:
        self._loop = loop
        self._closer = closer
        self._origin = Origin()
        self._changed = changed
        self._stored: dict[int, Stored] = {}
        self._changes: dict[int, Stored | None] = {}
        self._by_name: dict[str, dict[int, Stored]] = {}
        self._by_file: dict[str, list[int]] = {}  # the descriptors with this identity, in the order of kcmp(2)
        self._names_size = 0

    def __len__(self) -> int:
        return len(self._stored)

    def entries(self) -> tuple[tuple[str, int], ...]:
        """Return `(name, descriptor)` of each; the store still owns the descriptors."""
        return tuple((stored.name, stored.fd) for stored in self._stored.values())

    def stored(self) -> tuple[Stored, ...]:
        return tuple(self._stored.values())

    def take_changes(self) -> tuple[list[Stored], list[int]]:
        """Return the descriptors that were added since the last call and are still there, and the removed numbers."""
        changes, self._changes = self._changes, {}
        come = [stored for stored in changes.values() if stored is not None]
        return come, [fd for fd, stored in changes.items() if stored is None]

    def has_room(self, name: str, limit: int, names_max: int = NAMES_MAX, replaces: bool = False) -> bool:
        """Whether another descriptor with this name fits in; `replaces`: instead of all that have the name."""
        going = len(self._by_name.get(name, ())) if replaces else 0
        size = self._names_size + (1 - going) * (len(name) + 1)
        return len(self._stored) - going < limit and size <= names_max

    @property
    def is_closing_too_many(self) -> bool:
        """Whether to receive no more descriptors, because too many removed ones are still to be closed."""
        return not self._origin.has_room

    def add(
        self,
        name: str,
        fds: Iterable[int],
        polled: bool,
        limit: int,
        names_max: int = NAMES_MAX,
        trusted: bool = False,
    ) -> int:
        """Take over `fds`; return how many were refused and closed.

        Refused are epolls, descriptors without room, and those that the kernel does not identify. `limit` is
        the maximum number of descriptors, `names_max` the maximum total length of their names.

        A descriptor whose open file is stored already is closed and counts as stored, whatever its name.
        Without room, none is inspected.
        """
        left = dict.fromkeys(fds)
        try:
            for fd in list(left):
                # Others fill an epoll: inspecting it, or its content, takes a lock that they may hold.
                if not self.has_room(name, limit, names_max) or target(fd) == EPOLL:
                    continue
                try:
                    file = identity(fd)
                    at, is_there = _find(self._by_file.get(file, ()), fd)
                except OSError:  # the kernel cannot distinguish it from others
                    continue
                del left[fd]
                if is_there:
                    os.close(fd)  # not the last descriptor of its file
                else:
                    self._by_file.setdefault(file, []).insert(at, fd)
                    self._keep(Stored(name, fd, polled and may_be_polled(fd), file, trusted))
        finally:
            self._closer.close(left, self._origin)
        return len(left)

    def refuse(self, fds: Iterable[int]) -> None:
        """Close descriptors that were received but are not to be stored."""
        self._closer.close(fds, self._origin)

    def remove(self, name: str) -> None:
        """Close all descriptors with this name."""
        self._drop(list(self._by_name.get(name, {}).values()))

    def clear(self) -> None:
        self._drop(list(self._stored.values()))

    def _keep(self, stored: Stored) -> None:
        if stored.polled:
            try:
                # EPOLLHUP and EPOLLERR are reported without being requested
                self._loop.watch(stored.fd, 0, lambda events: self._hung_up(stored.fd, events))
            except OSError:
                stored = stored._replace(polled=False)
        self._stored[stored.fd] = stored
        self._by_name.setdefault(stored.name, {})[stored.fd] = stored
        self._names_size += len(stored.name) + 1
        self._note(stored.fd, stored)

    def _hung_up(self, fd: int, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self._drop([self._stored[fd]])

    def _drop(self, going: Sequence[Stored]) -> None:
        for stored in going:
            del self._stored[stored.fd]
            named = self._by_name[stored.name]
            del named[stored.fd]
            if not named:
                del self._by_name[stored.name]
            self._forget_file(stored)
            self._names_size -= len(stored.name) + 1
            if stored.polled:
                with suppress(OSError):  # no error if it was not watched
                    self._loop.unwatch(stored.fd)
        at_once = {stored.fd for stored in going if stored.trusted and not has_other_end(stored.fd)}
        self._closer.close((stored.fd for stored in going if stored.fd not in at_once), self._origin)
        for fd in at_once:
            with suppress(OSError):  # an error closes it as well
                os.close(fd)
        for stored in going:
            self._note(stored.fd, None)

    def _forget_file(self, stored: Stored) -> None:
        same = self._by_file[stored.file]
        at = -1
        with suppress(OSError):  # the kernel cannot compare it
            at, _is_there = _find(same, stored.fd)
        if 0 <= at < len(same) and same[at] == stored.fd:
            del same[at]
        else:
            same.remove(stored.fd)
        if not same:
            del self._by_file[stored.file]

    def _note(self, fd: int, stored: Stored | None) -> None:
        self._changes.pop(fd, None)  # a reused number has its last change last
        self._changes[fd] = stored
        self._changed()


def _find(ordered: Sequence[int], fd: int) -> tuple[int, bool]:
    """Return the position of the open file of `fd` among `ordered`, present or not, and whether it is present."""
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        order = kcmp_files(fd, ordered[middle])
        if order == Order.EQUAL:
            return middle, True
        if order == Order.LESS:
            high = middle
        else:
            low = middle + 1
    return low, False
