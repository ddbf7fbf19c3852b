"""A service as it runs: its definition, its life, its process and all that is held open for it."""

from __future__ import annotations

import os
from collections.abc import Callable

from supervisor.control.core import DescriptorRow
from supervisor.definitions.describe import describe
from supervisor.definitions.service import Descriptor, Service
from supervisor.lifecycle.dependencies import Obstacle
from supervisor.lifecycle.ended import Ended
from supervisor.lifecycle.life import Life
from supervisor.loop.loop import Loop, Timer
from supervisor.manager.pending import Pending
from supervisor.manager.worker import OPTIONS
from supervisor.notify.receiver import Receiver
from supervisor.notify.store import Store
from supervisor.process.cgroup import Leaf
from supervisor.process.network_namespace import namespace_of_name
from supervisor.process.run import Role, Run
from supervisor.process.table import STDIO, Table

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


class Unit:
    """Plain state; what is done with it is the manager's business.

    `pending` is the next definition while the process of the present one lives.  `obstacle` is
    what holds it back while it waits, `waits` says so in words; `ended` is how its last process
    ended, `last_exit` says so in words, `ended_clean` is whether it ended well, while what it
    left behind is being ended.  `feed` gives descriptors for one start that the child gets
    after the table and spawnd closes after the fork.  `sessions` are those of earlier processes
    that were to leave others behind, `others` (pids and start times) what they had left behind
    by then, which may be no descendants of this spawnd.  `ignored` counts notifications that
    were not believed, until `ignored_until` without a word.
    """

    __slots__ = (
        "cgroup", "ended", "ended_clean", "feed", "ignored", "ignored_until", "internal", "last_exit", "life",
        "obstacle", "oom_kills", "others", "pending", "receiver", "removed", "run", "service", "sessions",
        "status_text", "store", "table", "timer", "waits",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        loop: Loop,
        internal: bool = False,
        touch_store: Callable[[Unit], None] = lambda unit: None,
    ) -> None:
        self.service = service
        self.internal = internal
        self.life = Life(since=loop.clock())
        self.pending: Pending | None = None
        self.removed = False
        self.table = Table()
        self.store = Store(loop, lambda: touch_store(self))
        self.receiver: Receiver | None = None
        self.run: Run | None = None
        self.timer: Timer | None = None
        self.cgroup: Leaf | None = None
        self.oom_kills = 0
        self.sessions: set[int] = set()
        self.others: dict[int, int] = {}
        self.ended_clean: bool | None = None
        self.ignored = 0
        self.ignored_until = 0.0
        self.feed: Callable[[], list[tuple[str, int]]] | None = None
        self.status_text = ""
        self.last_exit = ""
        self.ended: Ended | None = None
        self.waits = ""
        self.obstacle: Obstacle | None = None

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def next_service(self) -> Service | None:
        """The definition that waits for the process of the present one to be gone."""
        return self.pending.service if self.pending is not None else None

    @property
    def pid(self) -> int | None:
        """The process, the check command's while that runs; None where there is none."""
        return self.run.pid if self.run is not None else None

    @property
    def is_displaced(self) -> bool:
        """Whether its process, or a socket of it, is in a network namespace whose name another one has by now."""
        run, netns = self.run, self.service.netns
        if run is None or run.role is not Role.MAIN:
            return False
        moved = run.netns is not None and namespace_of_name(netns) not in (None, run.netns)
        return moved or self.table.is_displaced

    def usage(self) -> tuple[int | None, float | None]:
        """Memory in bytes and CPU time in seconds: of its cgroup, else of its main process; None where unknown."""
        memory, cpu = self.cgroup.statistics() if self.cgroup is not None else (None, None)
        if self.pid is None or (memory is not None and cpu is not None):
            return memory, cpu
        own_memory, own_cpu = _usage_of(self.pid)
        return memory if memory is not None else own_memory, cpu if cpu is not None else own_cpu

    def descriptors(self) -> list[DescriptorRow]:
        """The descriptors that its process has or gets, 0, 1 and 2 included."""
        rows = [DescriptorRow(number, slot, self._standard(slot)) for number, slot in enumerate(STDIO)]
        specs = ((n, self.table.as_bound(str(n), spec)) for n, spec in enumerate(self.service.fd, 3))
        rows += [DescriptorRow(n, spec.name, describe(spec)) for n, spec in specs]
        if self.service.worker:
            rows.append(DescriptorRow(len(rows), OPTIONS, "options of the worker"))
        stored = self.store.entries()
        rows += [DescriptorRow(n, name, _target(fd), True) for n, (name, fd) in enumerate(stored, len(rows))]
        return rows

    def _standard(self, slot: str) -> str:
        spec: Descriptor = getattr(self.service, slot)
        return "log of spawnd" if self.service.shares_log(slot) else describe(spec)


def _target(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "unknown"


def _usage_of(pid: int) -> tuple[int | None, float | None]:
    try:
        # what takes a list of many services longest: twice as fast as with a file object
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        return None, None
    # the name may hold anything, so count from its closing bracket: field 3 follows it
    fields = text.rpartition(b")")[2].split()
    return int(fields[21]) * PAGE_SIZE, (int(fields[11]) + int(fields[12])) / TICKS
