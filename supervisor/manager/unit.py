"""A service as it runs: its definitions, its life, its process and its open descriptors.

Also log lines about services, stops of several in order, observers, and holders of addresses.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field

from supervisor.definitions.service import CONTROL, FIRST, STDIO, Accept, Descriptor, Service, Slot
from supervisor.lifecycle.cause import ENDLESS, endless, output_hint
from supervisor.lifecycle.dependencies import Obstacle
from supervisor.lifecycle.life import AT_REST, UP, Cause, Ended, Idleness, Life, State, is_down, lies_down, span
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop, Timer
from supervisor.manager.background import Background
from supervisor.manager.emptying import Again, Emptying, Parting
from supervisor.manager.worker import OPTIONS
from supervisor.notify.receiver import Receiver
from supervisor.notify.safe_close import Closer
from supervisor.notify.store import Store
from supervisor.printable import count
from supervisor.process.cgroup import Leaf
from supervisor.process.files import rights_of
from supervisor.process.held_descriptors import Opened, Table, claim, close_all, wanted
from supervisor.process.launch import DescriptorRow
from supervisor.process.network_namespace import namespace_of_name
from supervisor.process.paths import Sight
from supervisor.process.pids import cpu_seconds
from supervisor.process.run import Role, Run
from supervisor.process.sockets import is_bound
from supervisor.process.waiting import Waiting

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

SESSIONS = ":sessions"  # name of the table of an acceptor in its store, which no service can use
QUIET = 60.0  # seconds between two lines about the same failure
LINES_AT_ONCE = 20
NAMES = 5  # names in one list; the others are only counted
COUNTED = (State.ASLEEP, State.STARTING, State.WAITING, State.STOPPING, State.DONE, State.STOPPED)
NAMED = (State.FAILED, State.BACKOFF)


class Lines:
    """Lines of the log about failures, some of which are left out: the same is told again after a while.

    Failures that take turns have some lines at once, and then as many as a single one.
    """

    __slots__ = ("_last", "_quiet_until", "_used")

    def __init__(self) -> None:
        self._last = ""
        self._quiet_until = self._used = -math.inf

    def take(self, text: str, now: float) -> bool:
        """Return whether a line is to be written now."""
        if (text == self._last and now < self._quiet_until) or self._used - LINES_AT_ONCE * QUIET > now:
            return False
        self._last, self._quiet_until, self._used = text, now + QUIET, max(self._used, now) + QUIET
        return True


@dataclass(slots=True)
class SessionLimit:
    """The time limit of sessions while a unit has no acceptor; `told`: when to kill those that were told to end."""

    accept: Accept
    timer: Timer | None = None
    told: dict[int, float] = field(default_factory=dict)


class Pending:
    """The next definition `service` of a unit; owns `opened`, its descriptors so far, by slot."""

    __slots__ = ("opened", "service")

    def __init__(self, service: Service, opened: dict[Slot, Opened]) -> None:
        self.service = service
        self.opened = opened

    def inherit(self, before: Pending, closer: Closer) -> None:
        """Take the place of a pending definition that never took effect: keep what both want, close the rest."""
        self.opened.update(claim(wanted(self.service), self.opened, before.opened))
        before.discard(closer)

    def discard(self, closer: Closer) -> None:
        close_all(self.opened, closer)


@dataclass(slots=True, eq=False, repr=False)
class Unit:
    """The state of a service as plain data; the manager acts on it.

    `takeover/records.py` lists the saved fields, and how they are saved.
    """

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
    notify_path: str = ""  # path of its notification socket, present or past: its process knows it
    mark: str = ""  # in the environment of its processes where there is no cgroup
    run: Run | None = None
    timer: Timer | None = None
    cgroup: Leaf | None = None
    oom_kills: int = 0
    # pids and start times of known processes of a unit without a cgroup, besides the main one: leftovers of
    # earlier processes, which need not be descendants of this spawnd
    leftover_pids: dict[int, int] = field(default_factory=dict)
    # whether processes of it may have left its session under a spawnd that was lost: they went to process 1
    has_lost_children: bool = False
    first_started: int = 0  # start time of the process that the last start of a `forking` service has executed
    # whether the process ended well; set while its leftovers are ended or searched for a daemon
    ended_clean: bool | None = None
    is_sought: bool = False  # its daemon is searched for, as its first process has ended and may have left one
    rest: Background | Again | Emptying | Parting | None = None  # waits for these leftovers
    failure_lines: Lines | None = None  # of a service whose clients start it again and again
    ignored: int = 0  # notifications that were ignored since the last log line about them
    ignored_until: float = 0.0  # no such line before this time
    # returns descriptors for one start, which the child gets after the table and spawnd closes after the fork
    feed: Callable[[], list[tuple[str, int]]] | None = None
    status_text: str = ""
    last_exit: str = ""  # how its last process ended, as text
    ended: Ended | None = None  # the same
    last_call: str = ""  # result of the last function that belonged to its start or its stop, as text
    call_ended: Ended | None = None  # the same
    check_output: tuple[str, ...] = ()  # the last lines of a check that failed
    disconnected: str = ""  # clients that waited on a socket when it was last closed for another one
    is_looked_at: bool = False  # the paths of its sockets are, while it sleeps
    stale: str = ""  # descriptors whose paths lead elsewhere, and that could not be opened anew, as sentences
    flushed: int = 0  # datagrams that spawnd has dropped, since its start from rest
    # the first datagram after each of its last failed runs, by slot, and the number of these runs; set where `flush`
    # asks for it
    suspects: Mapping[Slot, tuple[str, int]] = field(default_factory=dict)
    is_suspicious: bool = False  # its last run has failed
    waits: str = ""  # what holds it back while it waits, as text
    obstacle: Obstacle | None = None  # the same
    idle: Idleness | None = None  # its use, while it is looked at: it runs, and has `idle_stop`
    says_busy: bool = False  # its process has said that it is not to be put to sleep
    # processes that are stopped for a moment, by pid and start time, to be looked at; {} if its cgroup is
    frozen: dict[int, int] | None = None
    session_limit: SessionLimit | None = None  # ends old sessions while there is no acceptor
    left: Waiting | None = None  # the clients that its last run has left waiting
    visit: Waiting | None = None  # the same of the run before the one that a client has started; None without that

    def __post_init__(self, loop: Loop, closer: Closer, touch_store: Callable[[Unit], None]) -> None:
        self.life = Life(since=loop.clock())
        self.table = Table(closer)
        self.store = Store(loop, closer, lambda: touch_store(self))

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def next_service(self) -> Service | None:
        """The definition that takes effect once the present process is gone."""
        return self.pending.service if self.pending is not None else None

    @property
    def pid(self) -> int | None:
        """Pid of the process, or of the check command while it runs; None without one."""
        return self.run.pid if self.run is not None else None

    @property
    def is_displaced(self) -> bool:
        """Whether its process or a socket is in a network namespace whose name belongs to another one by now."""
        run, netns = self.run, self.service.netns
        if run is None or run.role is not Role.MAIN:
            return False
        moved = run.netns is not None and namespace_of_name(netns) not in (None, run.netns)
        return moved or self.table.is_displaced

    def renew(self, sights: Mapping[Slot, Sight]) -> None:
        """Open anew what has changed, by slot of the table; a descriptor that cannot be opened stays as it was."""
        renewals = self.table.renew(sights, rights_of(self.service))
        self.stale = "; ".join(renewal.sentence for renewal in renewals if not renewal.is_new)
        for renewal in renewals:
            (notice if renewal.is_new else log.warning)("%s: %s", self.name, renewal.sentence)
            self.tell_disconnected(renewal.disconnected)

    def tell_disconnected(self, clients: Sequence[str]) -> None:
        """Note and log the clients that waited on sockets which were closed for others at the same places."""
        if clients:
            self.disconnected = ", ".join(clients)
            log.warning("%s: disconnected with the old socket: %s", self.name, self.disconnected)

    def close_shut(self) -> None:
        """Close the sockets that its last process has shut down, and log that they are opened anew."""
        for socket in self.table.close_shut():
            notice("%s: a process has shut down its socket %s: opened anew", self.name, socket)

    @property
    def undecided(self) -> str:
        """Why none of its processes in the background has been chosen as the daemon; '' without a search."""
        return self.rest.undecided if isinstance(self.rest, Background) else ""

    @property
    def session_table(self) -> int | None:
        """The table of the sessions of its acceptors, which its store owns; None without one."""
        return next((fd for name, fd in self.store.entries() if name == SESSIONS), None)

    @property
    def lacks_control_socket(self) -> bool:
        """Whether the socket of `control = true` is gone from its path in the run-time folder."""
        opened = (opened for _slot, opened in self.table if opened.spec.name == CONTROL)
        return self.service.control and any(not is_bound(each.spec.path) for each in opened)

    def make_mark(self) -> str:
        """Return the mark of its processes, which stays the same for as long as the unit exists."""
        self.mark = self.mark or os.urandom(12).hex()
        return self.mark

    def usage(self) -> tuple[int | None, float | None]:
        """Return memory in bytes and CPU time in seconds, of the cgroup or else the main process; None if unknown."""
        memory, cpu = self.cgroup.statistics() if self.cgroup is not None else (None, None)
        if self.pid is None or (memory is not None and cpu is not None):
            return memory, cpu
        own_memory, own_cpu = _usage_of(self.pid)
        return memory if memory is not None else own_memory, cpu if cpu is not None else own_cpu

    def descriptors(self) -> list[DescriptorRow]:
        """Return the descriptors that its process has or will get, 0, 1 and 2 included."""
        rows = [DescriptorRow(number, slot, self._standard(number, slot)) for number, slot in enumerate(STDIO)]
        specs = ((n, self.table.as_bound(n, spec)) for n, spec in enumerate(self.service.fd, FIRST))
        rows += [DescriptorRow(n, spec.name, spec.describe()) for n, spec in specs]
        if self.service.worker:
            rows.append(DescriptorRow(len(rows), OPTIONS, "options of the worker"))
        stored = self.store.entries()
        rows += [DescriptorRow(n, name, _target(fd), True) for n, (name, fd) in enumerate(stored, len(rows))]
        return rows

    def _standard(self, number: int, slot: str) -> str:
        spec: Descriptor = getattr(self.service, slot)
        return "log of spawnd" if self.service.shares_log(slot) else self.table.as_bound(number, spec).describe()


def _target(fd: int) -> str:
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "unknown"
    # the kernel says of each memfd that it is deleted, which no path was
    return target[1:].removesuffix(" (deleted)") if target.startswith("/memfd:") else target


def _usage_of(pid: int) -> tuple[int | None, float | None]:
    """Return resident bytes and seconds of CPU time, without waiting for a process that executes a program."""
    try:
        # the slowest part of a list of many services; os.read takes half the time of a file object
        fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            resident = int(os.read(fd, 4096).split()[1])
        finally:
            os.close(fd)
        return resident * PAGE_SIZE, cpu_seconds(pid)
    except OSError:
        return None, None


def spread() -> float:
    """Return a random number from -1 to 1."""
    return int.from_bytes(os.urandom(4)) / (1 << 31) - 1  # module `random` takes 100 KB


def announce(unit: Unit, late: bool = False) -> None:
    """Log the state that the unit has just entered, once for each change: sleep `late`, once its sockets are open."""
    name, life = unit.name, unit.life
    if late is not (life.state is State.ASLEEP):
        return
    match life.state:
        case State.STARTING:
            log.log(_level(unit), "Starting %s", name)
        case State.RUNNING:
            log.log(_level(unit), "%s: %s", name, _running(unit))
        case State.BACKOFF:
            if not _is_told(unit):
                return
            wait = (life.deadline or life.since) - life.since
            log.warning("%s: %s; failure %d, next start in %s", name, life.reason, life.failures, span(wait))
            if life.failures == 1:
                _tell_of_output(unit)
            if life.failures == ENDLESS and (question := endless(unit)):
                notice("%s: %s", name, question)
        case State.FAILED:
            log.error("%s: failed: %s", name, life.reason)
            _tell_of_output(unit)
        case State.WAITING if life.cause is Cause.CLIENT or lies_down(life):
            log.debug("%s: %s", name, life.reason)
        case State.WAITING if life.restarts and not life.failures:
            notice("%s: %s; starting it again", name, life.reason)
        case State.WAITING:
            log.debug("%s: %s", name, life.reason)
        case State.STOPPING:
            log.info("%s: stopping: %s", name, life.reason)
        case State.ASLEEP:
            log.log(_level(unit), "%s: %s", name, life.reason)
        case State.STOPPED | State.DONE | State.RELOADING:
            log.info("%s: %s: %s", name, life.state.value, life.reason)


def _is_told(unit: Unit) -> bool:
    """Whether the log gets the failure of a unit; clients start an acceptor again as often as each second."""
    if unit.service.accept is None:
        return True
    unit.failure_lines = unit.failure_lines or Lines()
    return unit.failure_lines.take(unit.life.reason, unit.life.since)


def announce_health(unit: Unit, since: float | None) -> None:
    """Log that a unit runs after all, after failures, if it has been up since then."""
    if unit.life.state is State.RUNNING and unit.life.up_since == since:
        log.info("%s: %s", unit.name, _running(unit))


def _running(unit: Unit) -> str:
    return f"{unit.life.reason}{'' if unit.pid is None else f', pid {unit.pid}'}"


def _level(unit: Unit) -> int:
    """Return the log level: a retry logs its failure only, and its success once it has been healthy for a while."""
    return logging.DEBUG if unit.life.failures else logging.INFO


def _tell_of_output(unit: Unit) -> None:
    """Point to the output of the program at the first failure and the last one."""
    if hint := output_hint(unit):
        notice("%s: %s", unit.name, hint)


def summary(states: Iterable[tuple[str, State]]) -> str:
    """Return the line that sums up services by name and state; services that need attention are named."""
    names: dict[State, list[str]] = {}
    for name, state in states:
        names.setdefault(state, []).append(name)
    total = sum(map(len, names.values()))
    up = sum(len(names.get(state, ())) for state in UP)
    text = f"{up} of {count(total, 'service')} running"
    for state in COUNTED:
        if state in names:
            text += f", {len(names[state])} {state}"
    for state in NAMED:
        if state in names:
            text += f"; {state}: {_some(names[state])}"
    return text


def _some(names: list[str]) -> str:
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")


class Observers:
    """Functions that are called when a unit appears or disappears, or when its state or its obstacle changes."""

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[Unit], None]] = {}

    def add(self, callback: Callable[[Unit], None]) -> Callable[[], None]:
        """Add an observer. Call the returned function to end this."""
        key = object()
        self._callbacks[key] = callback

        def end() -> None:
            self._callbacks.pop(key, None)

        return end

    def tell(self, unit: Unit) -> None:
        """Call the observers."""
        for callback in list(self._callbacks.values()):
            try:
                callback(unit)
            except Exception:
                log.exception("%s: unexpected error in an observer; going on", unit.name)


class Leaving:
    """Units that give up descriptors once their processes are gone: others may wait for the addresses."""

    def __init__(self) -> None:
        self._units: dict[str, Unit] = {}

    def add(self, unit: Unit) -> None:
        self._units[unit.name] = unit

    def drop(self, unit: Unit) -> bool:
        """Forget a unit that has given up its descriptors; return whether it was one of these."""
        return self._units.pop(unit.name, None) is not None

    def holder(self, unit: Unit) -> str | None:
        """Return the name of a unit that still holds an address that this one needs, or None."""
        if not self._units:
            return None
        needed = {spec.address() for spec in unit.table.missing(unit.service).values()}
        for other in self._units.values():
            if other is not unit and needed & {opened.spec.address() for _slot, opened in other.table}:
                return other.name
        return None


# the unit, why it stops, the service that the cause is about, if any, and whether its sessions live on
Order = tuple[Unit, Cause, str, bool]


class Stops:
    """The services that have been ordered to stop and have not stopped yet.

    A service is stopped once all its dependants that are to stop as well have stopped; dependants that are
    not to stop delay nothing. `later` returns the dependants by name. `stop` gets the values of an order.
    """

    def __init__(
        self, loop: Loop, later: Callable[[], Mapping[str, set[str]]], stop: Callable[[Unit, Cause, str, bool], None]
    ) -> None:
        self._loop = loop
        self._later = later
        self._stop = stop
        self._ordered: dict[str, Order] = {}
        self._told: set[str] = set()  # names of ordered services that have been told to stop
        self._planned = False

    def add(self, units: Iterable[Unit], cause: Cause = Cause.STOP, other: str = "", keeps: bool = False) -> None:
        """Order these units to stop for one cause."""
        self.add_all((unit, cause, other, keeps) for unit in units)

    def add_all(self, orders: Iterable[Order]) -> None:
        """Order stops, all in one call, so that the first waits for the others; units that need not wait stop now."""
        new = {order[0].name: order for order in orders if not is_down(order[0].life)}
        if new:
            self._ordered |= new
            self._told -= new.keys()
            self._advance()

    def cancel(self, unit: Unit) -> None:
        """Cancel the order to stop a unit, which is wanted again."""
        self._ordered.pop(unit.name, None)
        self._told.discard(unit.name)

    def is_ordered(self, unit: Unit) -> bool:
        """Whether the unit is to stop and has not stopped yet."""
        return unit.name in self._ordered

    def is_pending(self, unit: Unit) -> bool:
        """Whether the unit is to stop, and that has neither succeeded nor failed."""
        return unit.name in self._ordered and not self._is_done(unit)

    def orders(self) -> list[tuple[str, Cause, str, bool]]:
        """Return the pending orders, each with the name of its unit."""
        return [(name, *order[1:]) for name, order in self._ordered.items() if not self._is_done(order[0])]

    def look_soon(self) -> None:
        """Look again in the next round of the loop, once for all changes until then."""
        if self._ordered and not self._planned:
            self._planned = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._planned = False
        self._ordered = {name: order for name, order in self._ordered.items() if not self._is_done(order[0])}
        self._told &= self._ordered.keys()
        later = self._later()
        ready = {
            name: order
            for name, order in self._ordered.items()
            if name not in self._told and not later.get(name, set()) & self._ordered.keys()
        }
        for name, order in ready.items():
            # the stop of one may have led to a call of this, or have cancelled another one
            if name in self._ordered and name not in self._told:
                self._told.add(name)
                self._stop(*order)

    def _is_done(self, unit: Unit) -> bool:
        """Whether an ordered stop has succeeded or, once the unit was told, failed."""
        return is_down(unit.life) or (unit.name in self._told and unit.life.state in AT_REST)
