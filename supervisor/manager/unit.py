"""A service as it runs: its definitions, its life, its process and all that is held open for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field

from supervisor.definitions.service import Descriptor, Service
from supervisor.lifecycle.dependencies import Obstacle
from supervisor.lifecycle.life import Ended, Life
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop, Timer
from supervisor.manager.background import Background
from supervisor.manager.emptying import Emptying, Parting
from supervisor.manager.worker import OPTIONS
from supervisor.notify.receiver import Receiver
from supervisor.notify.safe_close import Closer
from supervisor.notify.store import Store
from supervisor.process.cgroup import Leaf
from supervisor.process.files import rights_of
from supervisor.process.held_descriptors import Opened, Table, claim, close_all, wanted
from supervisor.process.launch import DescriptorRow
from supervisor.process.network_namespace import namespace_of_name
from supervisor.process.paths import Sight
from supervisor.process.run import Role, Run
from supervisor.process.slots import FIRST, STDIO, Slot

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
CPUCLOCK_SCHED = 2  # <linux/posix-timers.h>: of a process, as clock_getcpuclockid(3) gives it


class Pending:
    """`service` is what is to come; owns `opened`, what was opened for it already, by slot."""

    __slots__ = ("opened", "service")

    def __init__(self, service: Service, opened: dict[Slot, Opened]) -> None:
        self.service = service
        self.opened = opened

    def inherit(self, before: Pending, closer: Closer) -> None:
        """Take the place of another that never got its turn: keep what both want, close the rest."""
        self.opened.update(claim(wanted(self.service), self.opened, before.opened))
        before.discard(closer)

    def discard(self, closer: Closer) -> None:
        close_all(self.opened, closer)


@dataclass(slots=True, eq=False)
class Unit:
    """Plain state; the manager acts on it.  `takeover/records.py` lists what of it is saved, and how."""

    service: Service
    loop: InitVar[Loop]
    closer: InitVar[Closer]
    internal: bool = False  # built in rather than defined
    touch_store: InitVar[Callable[[Unit], None]] = lambda unit: None
    life: Life = field(init=False)
    pending: Pending | None = None  # the next definition, while the process of the present one lives
    removed: bool = False
    table: Table = field(init=False)
    store: Store = field(init=False)
    receiver: Receiver | None = None
    notify_path: str = ""  # where its notification socket is or was: its process knows it
    mark: str = ""  # in the environment of its processes where there is no cgroup
    run: Run | None = None
    timer: Timer | None = None
    cgroup: Leaf | None = None
    oom_kills: int = 0
    # pids and start times of known processes of a unit without a cgroup beside the main one: left behind by earlier
    # processes, and perhaps no descendants of this spawnd
    leftover_pids: dict[int, int] = field(default_factory=dict)
    first_started: int = 0  # start time of the first process of its daemon in the background
    # whether the process ended well, while its leftovers are being ended, or searched for a daemon in the background
    ended_clean: bool | None = None
    rest: Background | Emptying | Parting | None = None  # waits for that
    ignored: int = 0  # notifications that were not believed,
    ignored_until: float = 0.0  # until then without a word
    # gives descriptors for one start, which the child gets after the table and spawnd closes after the fork
    feed: Callable[[], list[tuple[str, int]]] | None = None
    status_text: str = ""
    last_exit: str = ""  # how its last process ended, in words
    ended: Ended | None = None  # the same
    last_call: str = ""  # the result of the last call of a function that belongs to its start or its stop, in words
    call_ended: Ended | None = None  # the same
    check_output: tuple[str, ...] = ()  # the last lines of a check that failed
    disconnected: str = ""  # clients that waited on a socket which was closed for another one, the last time
    waits: str = ""  # what holds it back while it waits, in words
    obstacle: Obstacle | None = None  # the same

    def __post_init__(self, loop: Loop, closer: Closer, touch_store: Callable[[Unit], None]) -> None:
        self.life = Life(since=loop.clock())
        self.table = Table(closer)
        self.store = Store(loop, closer, lambda: touch_store(self))

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

    def renew(self, sights: Mapping[Slot, Sight]) -> None:
        """Open anew what has changed, by slot of the table; what cannot be opened stays as it was."""
        for renewal in self.table.renew(sights, rights_of(self.service)):
            (notice if renewal.is_new else log.warning)("%s: %s", self.name, renewal.sentence)
            self.tell_disconnected(renewal.disconnected)

    def tell_disconnected(self, clients: Sequence[str]) -> None:
        """Say who waited on sockets of the service that were closed because others have their places."""
        if clients:
            self.disconnected = ", ".join(clients)
            log.warning("%s: disconnected with the old socket: %s", self.name, self.disconnected)

    @property
    def undecided(self) -> str:
        """Why none of its processes in the background was taken for its own yet; '' where that is no question."""
        return self.rest.undecided if isinstance(self.rest, Background) else ""

    def make_mark(self) -> str:
        """The mark of its processes, which is the same for as long as the service is known."""
        self.mark = self.mark or os.urandom(12).hex()
        return self.mark

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
        specs = ((n, self.table.as_bound(n, spec)) for n, spec in enumerate(self.service.fd, FIRST))
        rows += [DescriptorRow(n, spec.name, spec.describe()) for n, spec in specs]
        if self.service.worker:
            rows.append(DescriptorRow(len(rows), OPTIONS, "options of the worker"))
        stored = self.store.entries()
        rows += [DescriptorRow(n, name, _target(fd), True) for n, (name, fd) in enumerate(stored, len(rows))]
        return rows

    def _standard(self, slot: str) -> str:
        spec: Descriptor = getattr(self.service, slot)
        return "log of spawnd" if self.service.shares_log(slot) else spec.describe()


def _target(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "unknown"


def _usage_of(pid: int) -> tuple[int | None, float | None]:
    """Resident bytes and seconds of CPU time, read without waiting for a process that executes a program."""
    try:
        # what takes a list of many services longest: twice as fast as with a file object
        fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            resident = int(os.read(fd, 4096).split()[1])
        finally:
            os.close(fd)
        return resident * PAGE_SIZE, time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
    except OSError:
        return None, None
