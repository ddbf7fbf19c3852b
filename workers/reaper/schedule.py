"""The order of looks at cgroups: by time, by free descriptors, and again after errors."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from supervisor.log.logger import log
from supervisor.printable import count, printable
from workers.reaper.node import WatchedCgroup

SLICE = 0.005  # seconds of work of one kind before other callbacks have their turn
GATHER = 0.02  # seconds within which due cgroups are handled together, because a wake-up costs more than the work
TOGETHER = 32  # cgroups per call of C: 3 ms
FAILED_PAUSE = 10.0  # seconds between two attempts after an error
QUEUE_PAUSE = 0.05  # seconds between two checks for room
QUEUE_AT_ONCE = 256  # cgroups
COMPLAINTS_PAUSE = 60.0  # seconds
MOST_COMPLAINTS = 10  # lines in that time, for each kind of error


class DueHeap:
    """Cgroups ordered by time; each has at most one time, `node.due`, which a new one replaces."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, WatchedCgroup]] = []
        self._order = itertools.count()

    def add(self, node: WatchedCgroup, when: float) -> None:
        node.due = when
        heapq.heappush(self._entries, (when, next(self._order), node))

    def remove(self, node: WatchedCgroup) -> None:
        node.due = None  # invalidates its entry

    def take(self, now: float, most: int) -> list[WatchedCgroup]:
        """Remove the first due cgroups from the heap, and return them."""
        entries = self._entries
        taken: list[WatchedCgroup] = []
        while entries and entries[0][0] <= now and len(taken) < most:
            when, _, node = heapq.heappop(entries)
            if node.due == when:
                node.due = None
                taken.append(node)
        return taken

    def next_time(self) -> float | None:
        entries = self._entries
        while entries and entries[0][2].due != entries[0][0]:  # an outdated entry
            heapq.heappop(entries)
        return entries[0][0] if entries else None


class Schedule:
    """Calls `due` with cgroups whose time has come, at most TOGETHER; after an exception, again later.

    `done` is called after one or several calls.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, due: Callable[[list[WatchedCgroup]], None], done: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._due = due
        self._done = done
        self._heap = DueHeap()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, node: WatchedCgroup, when: float) -> None:
        """Schedule a look at a cgroup; this replaces an earlier time."""
        self._heap.add(node, when)
        if self._timer is None or self._timer.when() > when + GATHER:
            self._set_timer(when + GATHER)

    def remove(self, node: WatchedCgroup) -> None:
        self._heap.remove(node)

    @property
    def next_run(self) -> float:
        """When `due` and `done` are called next, infinite without a scheduled look."""
        return math.inf if self._timer is None else self._timer.when()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._see_to_due)

    def _see_to_due(self) -> None:
        self._timer = None
        now = self._loop.time()
        end = now + SLICE
        while now < end and (nodes := self._heap.take(now, TOGETHER)):
            try:
                self._due(nodes)
            except Exception as error:
                log.error("unexpected error with %s; trying again", count(len(nodes), "cgroup"), exc_info=error)
                for node in nodes:
                    self._heap.add(node, self._loop.time() + FAILED_PAUSE)
            now = self._loop.time()
        when = self._heap.next_time()
        if when is not None:
            self._set_timer(when if when <= now else when + GATHER)
        self._done()


class DescriptorQueue:
    """Empty cgroups that wait for a free descriptor, in order of arrival.

    There may be tens of thousands of them while a script's database is unavailable. So waiting cgroups cause
    no work: when there is room, a few are looked at again.

    `room` returns the number of free descriptors; `enter` is called with a cgroup that may have one.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, room: Callable[[], int], enter: Callable[[WatchedCgroup], None]
    ) -> None:
        self._loop = loop
        self._room = room
        self._enter = enter
        self._nodes: dict[WatchedCgroup, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[WatchedCgroup]:
        return iter(self._nodes)

    def add(self, node: WatchedCgroup) -> None:
        self._nodes[node] = None
        if self._timer is None:
            self._timer = self._loop.call_later(QUEUE_PAUSE, self._let_in)

    def remove(self, node: WatchedCgroup) -> None:
        """Forget a cgroup that is gone or in use again."""
        self._nodes.pop(node, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _let_in(self) -> None:
        self._timer = None
        for node in list(itertools.islice(self._nodes, max(0, min(self._room(), QUEUE_AT_ONCE)))):
            del self._nodes[node]
            self._enter(node)
        if self._nodes and self._timer is None:
            self._timer = self._loop.call_later(QUEUE_PAUSE, self._let_in)


@dataclass(slots=True)
class _Kind:
    until: float
    lines: int = 0
    left_out: int = 0


class Complaints:
    """Recurring errors in the log: some lines per minute, and the number of omitted ones.

    `clock` returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, int | None], _Kind] = {}

    def tell(self, what: str, path: str, error: OSError) -> None:
        """Log `cannot WHAT cgroup PATH: CAUSE`."""
        now = self._clock()
        kind = self._kinds.setdefault((what, error.errno), _Kind(now + COMPLAINTS_PAUSE))
        more = ""
        if now >= kind.until:
            more = f" ({kind.left_out} more such errors before)" if kind.left_out else ""
            kind = self._kinds[what, error.errno] = _Kind(now + COMPLAINTS_PAUSE)
        if kind.lines >= MOST_COMPLAINTS:
            kind.left_out += 1
            return
        kind.lines += 1
        log.warning("cannot %s cgroup %s: %s; trying again%s", what, printable(path), error.strerror, more)
