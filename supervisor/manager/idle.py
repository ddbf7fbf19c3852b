"""Services that nobody uses: looks at those that run and have `idle_stop`, which puts them to sleep.

A child looks at all services that are due, so a look blocks nothing, and costs one list of connections for each
network namespace. Services without `idle_stop`, those that sleep and those that say that they are busy are not looked
at; without others there is no timer.

A service that has been idle for long enough is stopped for a moment, by the freezer of its cgroup or else by SIGSTOP,
and looked at again. Clients that come from then on stay in the backlog, as no thread can accept them. If there are none
yet, it is told to end, and goes on. `Unit.frozen` is written down before anything is stopped. Whatever happens to the
service or to spawnd, the state of the service changes, an answer comes or fails, or the next spawnd reads that record:
in each case it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from supervisor.errors import StepError
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import Idleness, State, Transition, look_period, looked_at
from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.manager.unit import Unit
from supervisor.process.children import AnsweringChild, Children
from supervisor.process.pids import continue_all, stop_all
from supervisor.process.run import Run
from supervisor.process.use import FREEZE_LIMIT, Asked, Use, answer_use, are_waited_for, read_use
from supervisor.process.waiting import can_wait_at
from supervisor.takeover.records import StateWriter

TIME_LIMIT = FREEZE_LIMIT + 2.0  # seconds for a look
AT_ONCE = 16  # services that are stopped for a moment together
RETRY = 0.1  # seconds until another try to let a service go on
SAYS_SO = "it says so"
UNKNOWN = Use(obstacle="the last look has failed")


class Owner(Protocol):
    """The manager of the units."""

    def event(self, unit: Unit, event: Callable[..., Transition], *args: object) -> None: ...

    @property
    def writer(self) -> StateWriter: ...

    def hear(self, unit: Unit) -> None:
        """Take the messages that the service has sent."""

    def tell(self, unit: Unit) -> None:
        """Note that a unit has become idle or busy."""


class Idlers:
    """The services that are looked at. Owns their `idle` and `frozen`, and a timer."""

    def __init__(self, loop: Loop, children: Children, owner: Owner) -> None:
        self._loop = loop
        self._children = children
        self._owner = owner
        self._units: dict[Unit, None] = {}
        self._timer: Timer | None = None
        self._is_looking = False

    def changed(self, unit: Unit) -> None:
        """Begin or end the looks at a unit whose state, definition or message has changed."""
        idle_stop = unit.service.idle_stop
        if unit.run is None:
            unit.says_busy = False
        if unit.life.state is not State.RUNNING or idle_stop is None or unit.run is None:
            self._units.pop(unit, None)
            unit.idle = None
            self.let_go_on(unit)
            if not self._units and self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        now = self._loop.clock()
        if unit.says_busy:
            unit.idle = Idleness(busy=SAYS_SO)
        elif unit not in self._units or unit.idle is None or unit.idle.due is None:
            since = unit.idle.since if unit.idle is not None and unit not in self._units else None
            unit.idle = Idleness(since, "", now + look_period(idle_stop), now, None if since else unit.usage()[1])
        else:
            unit.idle = unit.idle._replace(due=now + look_period(idle_stop))
        self._units[unit] = None
        self._plan(unit.idle.due)

    def said_busy(self, unit: Unit, is_busy: bool) -> None:
        """Note that a service forbids to put it to sleep, or permits it again."""
        if unit.says_busy != is_busy:
            unit.says_busy = is_busy
            self.changed(unit)
            self._owner.tell(unit)

    def _plan(self, due: float | None) -> None:
        """Look at `due` at the latest; a look that is under way plans the next one."""
        if due is not None and not self._is_looking and (self._timer is None or due < self._timer.when):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.clock()
        due = [unit for unit in self._units if _is_due(unit, now)]
        if due:
            self._look(due, self._judge)
        else:
            self._plan_next()

    def _plan_next(self) -> None:
        self._is_looking = False
        times = [unit.idle.due for unit in self._units if unit.idle is not None and unit.frozen is None]
        self._plan(min((due for due in times if due is not None), default=None))

    def _look(self, units: Sequence[Unit], done: Callable[[Mapping[Unit, Use]], None]) -> None:
        """Call `done` with the uses of those of the units that still have the same process by then."""
        self._is_looking = True
        runs = {unit: unit.run for unit in units}
        asked = {unit.name: _asked(unit, run) for unit, run in runs.items() if run is not None}

        def answered(answer: bytes, in_time: bool) -> None:
            found = read_use(answer, in_time)
            for unit in [unit for unit, run in runs.items() if unit.run is run]:
                try:
                    self._owner.hear(unit)  # what it has sent before it was looked at
                except Exception:
                    log.exception("%s: unexpected error in a message; going on", unit.name)
            same = [unit for unit, run in runs.items() if unit.run is run and unit in self._units]
            done({unit: found.get(unit.name, UNKNOWN) for unit in same})

        fds = [fd for each in asked.values() for fd, _netns in each.sockets]
        try:
            AnsweringChild(self._loop, self._children, partial(answer_use, asked), TIME_LIMIT, answered, fds)
        except OSError as error:
            log.warning("cannot look which services are idle: %s", error.strerror)
            answered(b"", False)

    def _judge(self, found: Mapping[Unit, Use]) -> None:
        """Note what the services are used for; stop for a moment those that were idle for long enough."""
        now = self._loop.clock()
        chosen: dict[Unit, Use] = {}
        for unit, use in found.items():
            before = unit.idle
            self._note(unit, use, now)
            if unit.idle is None or not unit.idle.is_over(unit.service, now):
                continue
            if len(chosen) < AT_ONCE:
                chosen[unit] = use
            elif before is not None:  # it has its turn right after these
                unit.idle = before._replace(due=now)
        if chosen and self._freeze(chosen):
            self._look(list(chosen), partial(self._judge_frozen, list(chosen)))
        else:
            self._plan_next()

    def _note(self, unit: Unit, use: Use, now: float) -> None:
        before = unit.idle
        if before is None or before.due is None:  # it says that it is busy
            return
        words = use.describe(are_waited_for(_fds(unit)))
        unit.idle = looked_at(unit.service, before, now, words, use.cpu_s)
        if (unit.idle.since, bool(unit.idle.busy)) != (before.since, bool(before.busy)):
            self._owner.tell(unit)

    def _freeze(self, chosen: Mapping[Unit, Use]) -> bool:
        """Stop services, once it is written down which; return whether any may have stopped."""
        for unit, use in chosen.items():
            unit.frozen = {} if unit.cgroup is not None else dict(use.processes)
            self._owner.writer.touch(unit)
        self._owner.writer.flush()
        if not self._owner.writer.is_current:
            for unit in chosen:  # a spawnd after a loss of this one would not know of it
                unit.frozen = None
                unit.idle = unit.idle and unit.idle._replace(since=None, busy="the state file cannot be written")
            return False
        for unit in chosen:
            self._owner.event(unit, machine.granted, TIME_LIMIT)  # its watchdog does not count this time
            try:
                if unit.cgroup is not None:
                    unit.cgroup.freeze()
                else:
                    stop_all(unit.frozen or {})
            except (StepError, OSError) as error:
                log.warning("%s: cannot be stopped for a look: %s", unit.name, error)
                self.let_go_on(unit)
        return True

    def _judge_frozen(self, stopped: Sequence[Unit], found: Mapping[Unit, Use]) -> None:
        """Tell services to end that nobody uses, and let all go on."""
        now = self._loop.clock()
        try:
            for unit, use in found.items():
                if unit.frozen is None or unit.says_busy or unit.idle is None:
                    continue
                words = use.describe(are_waited_for(_fds(unit)))
                if words:
                    unit.idle = unit.idle._replace(since=None, busy=words, due=now + look_period(_idle_stop(unit)))
                    self._owner.tell(unit)
                else:
                    self._owner.event(unit, machine.idle)
        finally:
            for unit in stopped:
                self.let_go_on(unit)
            self._plan_next()

    def let_go_on(self, unit: Unit) -> None:
        """Let a stopped service go on, with what it was told meanwhile; nothing else may leave it stopped."""
        if unit.frozen is None:
            return
        try:
            if unit.cgroup is not None:
                unit.cgroup.thaw()
            else:
                continue_all(unit.frozen)
        except (StepError, OSError) as error:
            log.warning("%s: cannot go on, trying again in %g s: %s", unit.name, RETRY, error)
            self._loop.call_later(RETRY, partial(self.let_go_on, unit))
            return
        unit.frozen = None
        self._owner.tell(unit)
        if unit.idle is not None:
            self._plan(unit.idle.due)


def _idle_stop(unit: Unit) -> float:
    return unit.service.idle_stop or 0.0


def _is_due(unit: Unit, now: float) -> bool:
    """Whether to look at a unit now: up to half its period early, so that services share a look."""
    due = unit.idle.due if unit.idle is not None and unit.frozen is None else None
    return due is not None and due - look_period(_idle_stop(unit)) / 2 <= now


def _fds(unit: Unit) -> list[int]:
    return [opened.fd for _slot, opened in unit.table if can_wait_at(opened)]


def _asked(unit: Unit, run: Run) -> Asked:
    sockets = tuple((opened.fd, opened.spec.netns or "") for _slot, opened in unit.table if opened.spec.accepts)
    cgroup = unit.cgroup.path if unit.cgroup is not None else ""
    frozen = frozenset(unit.frozen or ())
    return Asked(run.pid, run.started, cgroup, sockets, unit.frozen is not None, frozen)
