"""The ends of names: expiry, the hang-up of a lease, the end of an init; inits that an earlier process has left."""

from __future__ import annotations

import heapq
import select
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from workers.accessory.c_helpers import Init
from workers.accessory.entry import Entry
from workers.accessory.protocol import Refused

NAMES_AT_ONCE = 256  # names that expire in a turn of the loop
ENDS_AT_ONCE = 256  # leases and inits whose end is handled in a turn of the loop
INITS_AT_ONCE = 32  # inits of an earlier process that are held in a turn of the loop, a millisecond of work
PAUSE = 1.0  # seconds until another attempt to hold an init for which there was no descriptor


class Expiry:
    """Calls `expired(entry)` for each name without a lease that has not been touched for `after` seconds.

    A name is queued here at most once. If it was touched meanwhile, it is queued again when it comes up. So a
    touch costs nothing here.
    """

    def __init__(self, loop: Loop, after: float, expired: Callable[[Entry], None]) -> None:
        self._loop = loop
        self._after = after
        self._expired = expired
        self._heap: list[tuple[float, int, Entry]] = []
        self._timer: Timer | None = None
        loop.on_grace(self._grant)

    def when(self, entry: Entry) -> float:
        """Return when a name expires without further requests, on the loop's clock."""
        return entry.touched + self._after

    def left(self, entry: Entry) -> float:
        """Return the seconds until a name expires, at least 0."""
        return max(0.0, self.when(entry) - self._loop.clock())

    def wait(self, entry: Entry) -> None:
        """Queue an entry without a lease for expiry."""
        if not entry.waits:
            entry.waits = True
            heapq.heappush(self._heap, (self.when(entry), entry.id, entry))
            self._arm()

    def _grant(self, seconds: float) -> None:
        """Postpone expiries by the time in which this process did not run and could not take requests."""
        for _due, _id, entry in self._heap:
            entry.touched += seconds
        self._heap = [(due + seconds, id, entry) for due, id, entry in self._heap]

    def _arm(self) -> None:
        if not self._heap:
            return
        due = self._heap[0][0]
        if self._timer is not None and self._timer.when > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.clock()
        for _ in range(NAMES_AT_ONCE):
            if not self._heap or self._heap[0][0] > now:
                break
            _, _, entry = heapq.heappop(self._heap)
            entry.waits = False
            if entry.is_leased:
                continue
            if self.when(entry) > now:
                self.wait(entry)
            else:
                self._expired(entry)
        self._arm()


class HangupWatch:
    """Calls `lease_ended(entry, fd)` when the pipe of a lease hangs up, and `init_ended(entry)`.

    All of them share an extra epoll: there may be thousands, and each takes only an entry in a list. Owns the
    epoll and the inits that it has to end; other descriptors still belong to their owners.
    """

    def __init__(
        self, loop: Loop, lease_ended: Callable[[Entry, int], None], init_ended: Callable[[Entry], None]
    ) -> None:
        self._loop = loop
        self._lease_ended = lease_ended
        self._init_ended = init_ended
        self._epoll = select.epoll()
        self._leases: list[Entry | None] = []  # by descriptor
        self._inits: dict[int, Entry | Init] = {}
        loop.watch(self._epoll.fileno(), select.EPOLLIN, lambda _events: self._take())

    def watch_lease(self, entry: Entry, fd: int) -> None:
        """Watch a lease. Raises OSError."""
        self._epoll.register(fd, 0)  # EPOLLHUP and EPOLLERR are reported without being requested
        if fd >= len(self._leases):
            self._leases.extend([None] * (fd + 1 - len(self._leases)))
        self._leases[fd] = entry

    def watch_init(self, entry: Entry, init: Init) -> None:
        """Watch an init. Raises OSError."""
        self._epoll.register(init.pidfd, select.EPOLLIN)
        self._inits[init.pidfd] = entry

    def unwatch_lease(self, fd: int) -> None:
        """End the watch of a lease, if there is one."""
        if self._lease(fd) is not None:
            self._leases[fd] = None
            self._epoll.unregister(fd)

    def _lease(self, fd: int) -> Entry | None:
        return self._leases[fd] if fd < len(self._leases) else None

    def end(self, init: Init) -> None:
        """Kill an init, and reap and close it once it has ended, which takes as long as its namespace does."""
        init.kill()
        if init.pidfd not in self._inits:
            try:
                self._epoll.register(init.pidfd, select.EPOLLIN)
            except OSError:  # no memory, so wait for it here
                init.wait()
                init.close()
                return
        self._inits[init.pidfd] = init

    def _take(self) -> None:
        for fd, _events in self._epoll.poll(0, ENDS_AT_ONCE):
            if (entry := self._lease(fd)) is not None:
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


def adopt_inits(loop: Loop, hold: Callable[[Entry], None], entries: Iterable[Entry]) -> None:
    """Call `hold` from the loop for each entry with an init of an earlier process, some entries per turn.

    After a Refused, `hold` is called again later.
    """
    _go_on(loop, hold, deque(entries), [])


def _go_on(loop: Loop, hold: Callable[[Entry], None], left: deque[Entry], failed: list[Entry]) -> None:
    if left:
        loop.call_soon(partial(_hold_some, loop, hold, left, failed))
    elif failed:
        loop.call_later(PAUSE, partial(adopt_inits, loop, hold, failed))


def _hold_some(loop: Loop, hold: Callable[[Entry], None], left: deque[Entry], failed: list[Entry]) -> None:
    try:
        for _ in range(min(INITS_AT_ONCE, len(left))):
            entry = left.popleft()
            try:
                hold(entry)
            except Refused as error:
                if not failed:
                    log.error("%s; trying again", error)  # once for all entries, of which there may be thousands
                failed.append(entry)
    finally:
        _go_on(loop, hold, left, failed)
