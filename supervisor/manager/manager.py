"""The units as they run: events go into the state machine, and its actions are carried out here.

There is one `Manager` in the process, and everything happens in its loop. It owns the units and, through
them, every process and descriptor of the services.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from supervisor.definitions.service import Change, Service, Settings, Slot
from supervisor.errors import StepError
from supervisor.lifecycle import machine
from supervisor.lifecycle.dependencies import Hold, Obstacle, conflicts, dependents, obstacle
from supervisor.lifecycle.life import AT_REST, Act, Cause, Ended, State, Step, Transition, is_down, lies_down
from supervisor.lifecycle.transaction import Standing, Transaction
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop
from supervisor.manager.functions import Sources
from supervisor.manager.host import HostFacts
from supervisor.manager.idle import Idlers
from supervisor.manager.inspection import Draining
from supervisor.manager.processes import ROLES, Processes
from supervisor.manager.sessions import limit_sessions
from supervisor.manager.sleep import Sleepers
from supervisor.manager.unit import Leaving, Observers, Pending, Stops, Unit, announce, announce_health, spread
from supervisor.process.children import Children
from supervisor.process.held_descriptors import Opened
from supervisor.process.run import Role
from supervisor.takeover.records import StateWriter

WITHOUT_PROCESS = frozenset({State.WAITING, State.BACKOFF, State.ASLEEP})  # and not at rest: open descriptors stay open


class Manager:
    def __init__(self, loop: Loop, children: Children, host: HostFacts) -> None:
        self.loop = loop
        self.host = host
        self.children = children
        self.units: dict[str, Unit] = {}
        self.settings = Settings()
        self.shutting_down = False
        self.writer = StateWriter(self, host.runtime.state)
        self.sources = Sources()
        self.processes = Processes(loop, children, host, self.sources, self, lambda: self.units)
        self.sleepers = Sleepers(loop, children, self)
        self.sleep = self.sleepers.sleep
        self.idlers = Idlers(loop, children, self)
        self.hear, self.said_busy = self.processes.hear, self.idlers.said_busy
        self._observers = Observers()
        self.flush, self.observe = self.writer.flush, self._observers.add
        self._dependents: dict[str, set[str]] = {}
        self.conflicts: dict[str, set[str]] = {}
        self._leaving = Leaving()
        loop.on_grace(self._grant)
        self._stops = Stops(loop, lambda: self._dependents, lambda unit, *why: self.event(unit, machine.stop, *why))

    # the set of units

    def add(self, service: Service, opened: dict[Slot, Opened] | None = None, internal: bool = False) -> Unit:
        """Return a new unit, or keep a unit that was being removed; takes over `opened`. Call `index` afterwards."""
        unit = self.units.get(service.name)
        if unit is None:
            unit = Unit(service, self.loop, self.host.closer, internal, self.writer.touch_store)
            self.units[service.name] = unit
            unit.table.adopt(service, opened or {})
            self._observers.tell(unit)
        else:
            unit.removed = False
            self._replace(unit, Pending(service, opened or {}))
        self.writer.touch(unit)
        return unit

    def define(self, unit: Unit, service: Service, kind: Change, opened: dict[Slot, Opened]) -> None:
        """Give a unit another definition; takes over `opened`, its new descriptors by slot.

        `opened` is empty for a unit that stays down. Nothing is started or stopped: where the change requires
        a restart, a unit with a process keeps its present definition until the process is gone. Call `index`
        afterwards.
        """
        if service is unit.service and kind is Change.NOTHING and not opened and unit.pending is None:
            return
        self.writer.touch(unit)
        if unit.life.state in AT_REST:
            unit.service = service
            unit.table.adopt(service, opened)
            self._arm(unit)
        elif opened or kind in (Change.RESTART, Change.REBUILD) or unit.pending is not None:
            self._replace(unit, Pending(service, opened))
        else:
            unit.service = service
            self.idlers.changed(unit)
            if kind is Change.LIMITS:
                self.processes.set_limits(unit)

    def succeed(self, unit: Unit, opened: dict[Slot, Opened]) -> None:
        """Replace descriptors of a running service, by slot, once its process is gone; takes over `opened`."""
        if opened:
            self.writer.touch(unit)
            self._replace(unit, Pending(unit.next_service or unit.service, opened))

    def remove(self, units: Iterable[Unit]) -> None:
        """Forget each unit once it is at rest. Stopping the units is up to the caller. Call `index` afterwards."""
        for unit in units:
            unit.removed = True
            self.writer.touch(unit)
            if is_down(unit.life):
                self._forget(unit)
            else:
                self._leaving.add(unit)

    def discard(self, name: str) -> None:
        """Forget a unit for which nothing has been done yet."""
        unit = self.units.pop(name, None)
        if unit is not None:
            unit.table.close()
            unit.store.clear()
            if unit.pending is not None:
                unit.pending.discard(self.host.closer)

    def rebuild(self, unit: Unit) -> None:
        """Resume a unit of an earlier spawnd from its record. No process is signalled or started yet."""
        self._arm(unit)
        if unit.run is not None:
            self.processes.take_over(unit, unit.run)
        if unit.pending is not None or unit.removed:
            self._leaving.add(unit)
        self.idlers.let_go_on(unit)
        self.idlers.changed(unit)

    def sweep(self) -> None:
        """Finish what an earlier spawnd had begun to clean up."""
        for unit in self.units.values():
            self.processes.sweep(unit)

    def let_go(self) -> None:
        """Let children that work for receivers finish: the next program of this process would not know them."""
        for unit in self.units.values():
            if unit.receiver is not None:
                unit.receiver.settle()

    def under_way(self) -> dict[str, Any]:
        """Return the work in progress that no unit's record holds, by unit name, for `activate`."""
        return {"stops": self._stops.orders(), "reloads": self.processes.side_calls.reloading()}

    def activate(self, under_way: Mapping[str, Any]) -> None:
        """Resume the work that was under way."""
        for unit in list(self.units.values()):
            self.event(unit, machine.resumed)
            self.event(unit, machine.alive)  # spawnd could not hear watchdog messages meanwhile
            if unit.ended_clean is not None:
                self.ended(unit)
        # the others have stopped just now; an older spawnd has written three fields
        left = [(*order, False)[:4] for order in under_way["stops"] if order[0] in self.units]
        self._stops.add_all((self.units[name], Cause(cause), *rest) for name, cause, *rest in left)
        self.sweep()
        self.children.reap()

    def ended(self, unit: Unit) -> None:
        """Handle the end of a unit's last process; it is clean only if the record says so."""
        self.processes.aftermath.end(unit, clean=bool(unit.ended_clean))

    def index(self, order: Iterable[str] = ()) -> None:
        """Compute the order between the units anew, after units or definitions have changed."""
        self.units = {name: self.units[name] for name in dict.fromkeys((*order, *self.units)) if name in self.units}
        services = self.services()
        present = {unit.service.source_digest for unit in self.units.values()}
        self.sources.keep(present | {service.source_digest for service in services.values()})
        self._dependents = dependents(services)
        self.conflicts = conflicts(services)
        for unit in self.units.values():
            self._wake(unit)

    def _replace(self, unit: Unit, pending: Pending) -> None:
        if unit.pending is not None:
            pending.inherit(unit.pending, self.host.closer)
        unit.pending = pending
        if unit.life.state not in AT_REST | WITHOUT_PROCESS:
            self._leaving.add(unit)
        else:
            self._take_pending(unit)

    def _take_pending(self, unit: Unit) -> None:
        """Put the next definition into force; a unit at rest keeps nothing open."""
        if unit.pending is None:
            return
        pending, unit.pending = unit.pending, None
        unit.service = pending.service
        self.writer.touch(unit)
        self.sleepers.leave(unit)
        if unit.life.state in AT_REST:
            pending.discard(self.host.closer)
        else:
            unit.tell_disconnected(unit.table.adopt(pending.service, pending.opened))
            self.processes.set_limits(unit)
        self.event(unit, machine.resumed)
        self._left(unit)

    def _forget(self, unit: Unit) -> None:
        del self.units[unit.name]
        self.writer.touch(unit)
        self._observers.tell(unit)  # readers of its output can still fetch the rest
        self.host.outputs.drop(unit.name)
        self._left(unit)

    def _left(self, unit: Unit) -> None:
        """Wake the other units once this one has given up its descriptors: they may wait for an address."""
        if self._leaving.drop(unit):
            for other in self.units.values():
                self._wake(other)

    def services(self) -> dict[str, Service]:
        """Return the definitions by name, pending ones in place of present ones."""
        return {name: unit.pending.service if unit.pending else unit.service for name, unit in self.units.items()}

    def unix_time(self, monotonic: float) -> float:
        """Convert a time of the loop's clock to Unix time, by the present reading of both clocks."""
        return time.time() - (self.loop.clock() - monotonic)

    # what the operator wants

    def standing(self) -> Standing:
        """Return the present standing of the services, from which a transaction is decided."""
        lives = {name: unit.life for name, unit in self.units.items()}
        return Standing(self.services(), lives, self.conflicts, {name for name, *_why in self._stops.orders()})

    def move(self, transaction: Transaction) -> None:
        """Carry out the orders of a transaction."""
        for name in transaction.up:
            self._stops.cancel(self.units[name])
        downs = transaction.down.items()
        self._stops.add_all((self.units[name], down.cause, down.other, False) for name, down in downs)
        for name, rival in transaction.displaced.items():
            self.event(self.units[name], machine.start)
            self.event(self.units[name], machine.stop, Cause.CONFLICT, rival)
        for name, up in transaction.up.items():
            if up.sleeps and not up.ends_sessions:
                self.sleepers.keep(self.units[name], up.renew and up.cause is not Cause.DEFINITION)
            elif up.renew:
                unit = self.units[name]
                self.event(unit, machine.restart, up.cause, up.detail, unit.table.is_awaited, up.ends_sessions)
            else:
                self.event(self.units[name], machine.start, up.cause)

    def start(self, names: Iterable[str]) -> None:
        """Start services after the services that they depend on; services in conflict with them are stopped."""
        self.bring_up(names, renew=False, cause=Cause.START, ordered=True)

    def settle(self, names: Iterable[str]) -> None:
        """Start services, or put them to sleep, as their definitions say."""
        self.bring_up(names, renew=False, cause=Cause.START)

    def bring_up(
        self, names: Iterable[str], renew: bool, cause: Cause, detail: str = "", ordered: bool = False,
        ends_sessions: bool = False,
    ) -> None:  # fmt: skip
        """Start services with what they depend on. `renew`: those that run are restarted. `ordered`: none sleeps."""
        if self.shutting_down:
            return
        transaction = Transaction(self.standing())
        transaction.bring_up((name for name in names if not self.units[name].removed), renew, cause, ordered)
        if detail or ends_sessions:
            for name, up in transaction.up.items():
                if not up.needed_by:
                    transaction.up[name] = up._replace(detail=detail, ends_sessions=ends_sessions and up.renew)
        self.move(transaction)

    def stop(
        self, names: Iterable[str], cause: Cause = Cause.STOP, other: str = "", keeps_sessions: bool = False
    ) -> None:
        """Stop services, dependants first; `other` is the service that the cause is about."""
        self._stops.add([self.units[name] for name in names if name in self.units], cause, other, keeps_sessions)

    def is_to_stop(self, name: str) -> bool:
        """Whether the unit has been ordered to stop, and that has neither succeeded nor failed."""
        return self._stops.is_pending(self.units[name])

    def goes_on(self, unit: Unit) -> bool:
        """Whether the unit is not at rest, or will leave it because its last stop has failed and it is to stop."""
        return unit.life.state not in AT_REST or self._stops.is_pending(unit)

    def restart(self, names: Iterable[str], cause: Cause = Cause.RESTART, ends_sessions: bool = False) -> None:
        """Restart services that run or are about to, and start the others with their dependencies."""
        self.bring_up(names, renew=True, cause=cause, ends_sessions=ends_sessions)

    def renew(self, names: Iterable[str], cause: Cause, detail: str = "") -> None:
        """Restart services as a signal does: services that are down, or are going down for good, stay down."""
        standing = self.standing()
        self.bring_up([name for name in names if standing.is_wanted(name)], True, cause, detail)

    def reset(self, names: Iterable[str]) -> None:
        for name in names:
            self.event(self.units[name], machine.reset)

    def signal(self, name: str, signum: int) -> bool:
        """Send a signal to the main process; return False if there is none."""
        return self.processes.signal(self.units[name], signum)

    # transitions

    def event(self, unit: Unit, event: Callable[..., Transition], *args: object) -> None:
        self.apply(unit, event(unit.service, unit.life, self.loop.clock(), *args))

    def apply(self, unit: Unit, transition: Transition) -> None:
        """Make a transition: carry out its actions, which may lead to further transitions, then tell the observers."""
        before, (unit.life, acts) = unit.life, transition
        changed = unit.life.state is not before.state
        if changed:
            unit.waits, unit.obstacle = "", None
            if before.state is State.ASLEEP:
                self.sleepers.leave(unit)
            if unit.life.state in WITHOUT_PROCESS:
                self._take_pending(unit)  # the process that had the present definition is gone
            if unit.life.state is State.BACKOFF or unit.life.state in AT_REST:
                unit.visit = None  # the run has failed already, or was stopped
                unit.is_suspicious = unit.service.flush and unit.life.state is State.BACKOFF
            announce(unit)
            if unit.life.state is State.RUNNING and unit.life.failures:
                self.loop.call_later(unit.service.healthy_after, partial(announce_health, unit, unit.life.up_since))
        self._arm(unit)
        if unit.life._replace(watchdog_at=before.watchdog_at) != before:
            self.writer.touch(unit)
        for act in acts:
            self._do(unit, act)
        if changed:
            self._changed(unit)

    def _changed(self, unit: Unit) -> None:
        """Wake the units that may go on now, and call the observers, which see the life that it has reached by now."""
        announce(unit, late=True)
        self.idlers.changed(unit)
        self._stops.look_soon()
        self._wake(unit)
        self._wake_all((*self._dependents.get(unit.name, ()), *self.conflicts.get(unit.name, ())))
        if unit.life.state is State.RUNNING:
            self._renew_displaced(self._dependents.get(unit.name, ()))
        if unit.internal and unit.life.state in AT_REST:
            # built-in workers have to run: services would block on a log that nobody reads
            self.loop.call_soon(partial(self.start, [unit.name]))
        self._observers.tell(unit)

    def _renew_displaced(self, names: Iterable[str]) -> None:
        """Restart those of these dependants whose network namespace has been recreated by the unit that is up now."""
        displaced = [name for name in names if name in self.units and self.units[name].is_displaced]
        for name in displaced:
            notice("%s: its network namespace was recreated; restarting it", name)
        if displaced:
            self.loop.call_soon(partial(self.renew, displaced, Cause.NAMESPACE))

    def _wake(self, unit: Unit) -> None:
        if unit.life.state is State.WAITING:
            self.loop.call_soon(partial(self._try_start, unit))

    def _wake_all(self, names: Iterable[str]) -> None:
        """Wake the named units that still exist: the names come from the last order, which may be outdated."""
        for name in names:
            if name in self.units:
                self._wake(self.units[name])

    def _try_start(self, unit: Unit) -> None:
        """Start a waiting unit if nothing holds it back any more."""
        if unit.life.state is not State.WAITING or self.shutting_down:
            return
        if self._stops.is_ordered(unit):
            self._stops.look_soon()  # its turn may have just come
            return
        rivals = sorted(self.conflicts.get(unit.name, ()))
        unit.obstacle = obstacle(unit.service, self.units, rivals)
        if unit.obstacle is None and (holder := self._leaving.holder(unit)) is not None:
            unit.obstacle = Obstacle(Hold.ADDRESS, holder)
        if unit.obstacle is None:
            if rivals:
                self.stop(rivals, Cause.CONFLICT, unit.name)
            if unit.life.state is State.WAITING:
                self.event(unit, machine.dependencies_met)
        elif (waits := unit.obstacle.describe(self.units)) != unit.waits:
            unit.waits = waits
            log.info("%s: waits: %s", unit.name, waits)
            self._observers.tell(unit)
            # dependants need not wait for a unit that waits for ever
            self._wake_all(self._dependents.get(unit.name, ()))

    def _arm(self, unit: Unit) -> None:
        """Set the unit's timer to when something is due.

        A timer that rings too early, as after a watchdog message, only checks and is set anew. That is
        cheaper than setting it with each message.
        """
        if unit.service.accept is not None:
            limit_sessions(self.loop, unit)
        due = unit.life.due()
        if unit.timer is not None and (due is None or unit.timer.when > due):
            unit.timer.cancel()
            unit.timer = None
        if due is not None and unit.timer is None:
            unit.timer = self.loop.call_at(due, partial(self._ring, unit))

    def _ring(self, unit: Unit) -> None:
        """Handle the deadline that the timer was set for.

        Deadlines that have passed since then are judged after the messages that arrived by then.
        """
        timer, unit.timer = unit.timer, None
        due = unit.life.due()
        if timer is not None and due is not None and due <= timer.when:
            self.event(unit, machine.timed_out)
        else:
            self._arm(unit)

    def _grant(self, seconds: float) -> None:
        """Extend the time limits of services by the time in which this process, and perhaps they, did not run."""
        notice("back later than meant (stopped, frozen or suspended): all time limits are %.1f s longer", seconds)
        for unit in self.units.values():
            self.event(unit, machine.granted, seconds)

    # actions

    def _do(self, unit: Unit, act: Act) -> None:
        match act:
            case Act.DRAIN:
                Draining(self, unit)
            case Act.SLEEP:
                self.processes.close_receiver(unit)  # ten thousand that sleep have none
                self.sleepers.fall_asleep(unit)
            case Act.LAUNCH | Act.CHECK | Act.CALL_START | Act.CALL_RESTART | Act.CALL_STOP:
                self.processes.start(unit, ROLES[act])
            case Act.END_LEFT:
                self.processes.aftermath.end_left(unit)
            case Act.RELEASE:
                self.processes.release(unit)
                self._take_pending(unit)
                if unit.removed:  # another stop has to find it if this one has failed
                    (self._forget if is_down(unit.life) else self._left)(unit)
            case Act.KILL:
                self.processes.kill(unit)
            case Act.HANDOVER_SIGNAL if unit.service.handover_signal is not None:
                if not self.processes.drop(unit):
                    self.processes.signal(unit, unit.service.handover_signal)
            case Act.STOP_SIGNAL | Act.HANDOVER_SIGNAL:
                self.processes.tell_to_stop(unit)
            case Act.ABORT:
                self.processes.signal(unit, signal.SIGABRT)

    # events of the processes

    def touch(self, unit: Unit) -> None:
        """Note a change of the unit that comes with no event."""
        self.writer.touch(unit)

    def tell(self, unit: Unit) -> None:
        """Note that a service has become idle, or is used again."""
        self.writer.touch(unit)
        self._observers.tell(unit)

    def started(self, unit: Unit) -> None:
        """Write the new process down before it is released: the next spawnd finds it whenever this one is killed."""
        self.writer.touch(unit)
        self.writer.flush(unit)

    def start_failed(self, unit: Unit, error: StepError) -> None:
        ended = Ended.of_step(error.step, error.path, error.errno, error.cause, error.line)
        if unit.life.step is Step.TEARDOWN:
            unit.last_call, unit.call_ended = str(error), replace(ended, function=Role.STOP.value)
        else:
            unit.ended = ended
        self.event(unit, machine.start_failed, str(error), spread())

    def executed(self, unit: Unit) -> None:
        self.event(unit, machine.executed)

    def in_background(self, unit: Unit) -> None:
        self.event(unit, machine.in_background)

    def ready(self, unit: Unit) -> None:
        self.event(unit, machine.ready)

    def ready_closed(self, unit: Unit) -> None:
        self.event(unit, machine.ready_closed)

    def exited(self, unit: Unit, clean: bool, reason: str) -> None:
        """Handle the end of the process and of all leftovers that have to end with it."""
        if not clean or lies_down(unit.life):
            unit.visit = None  # whether its clients still wait does not matter: it has failed, or was told to end
        is_call = unit.life.state is State.STOPPING and unit.life.step is Step.TEARDOWN
        if is_call and unit.call_ended is not None and unit.call_ended.step:  # its function has not begun
            self.event(unit, machine.start_failed, reason, spread())
            return
        unit.is_suspicious = unit.is_suspicious and not clean
        status = unit.ended.status if unit.ended is not None and not unit.ended.function else None
        self.event(unit, machine.exited, clean, reason, spread(), status)
