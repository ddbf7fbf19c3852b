"""Hearing of what ends: leases, whose pipes hang up, and inits, whose pidfds become readable.

All of them are in one epoll of their own, as there may be thousands: what each costs here is an entry in a table.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from supervisor.loop.loop import Loop
from workers.accessory.entry import Entry
from workers.accessory.program import Init

AT_ONCE = 256  # that are taken before others have their turn


class Ends:
    """Calls `lease_ended(entry, fd)` and `init_ended(entry)`.

    Owns its epoll, and the inits that it is to end; all other descriptors stay their owners'.
    """

    def __init__(
        self, loop: Loop, lease_ended: Callable[[Entry, int], None], init_ended: Callable[[Entry], None]
    ) -> None:
        self._loop = loop
        self._lease_ended = lease_ended
        self._init_ended = init_ended
        self._epoll = select.epoll()
        self._leases: dict[int, Entry] = {}
        self._inits: dict[int, Entry | Init] = {}
        loop.watch(self._epoll.fileno(), select.EPOLLIN, lambda _events: self._take())

    def watch_lease(self, entry: Entry, fd: int) -> None:
        """Raises OSError."""
        self._epoll.register(fd, 0)  # EPOLLHUP and EPOLLERR come unasked
        self._leases[fd] = entry

    def watch_init(self, entry: Entry, init: Init) -> None:
        """Raises OSError."""
        self._epoll.register(init.pidfd, select.EPOLLIN)
        self._inits[init.pidfd] = entry

    def unwatch_lease(self, fd: int) -> None:
        """Does nothing for one that is not watched."""
        if self._leases.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def end(self, init: Init) -> None:
        """Kill an init, and reap and close it once it is gone: that takes as long as its namespace does."""
        init.kill()
        if init.pidfd not in self._inits:
            try:
                self._epoll.register(init.pidfd, select.EPOLLIN)
            except OSError:  # no memory: then we wait for it
                init.wait()
                init.close()
                return
        self._inits[init.pidfd] = init

    def _take(self) -> None:
        for fd, _events in self._epoll.poll(0, AT_ONCE):
            if (entry := self._leases.get(fd)) is not None:
                self.unwatch_lease(fd)
                self._lease_ended(entry, fd)
            elif (owner := self._inits.get(fd)) is not None:
                self._epoll.unregister(fd)
                del self._inits[fd]
                if isinstance(owner, Entry):
                    self._init_ended(owner)
                else:
                    owner.reap()
                    owner.close()
