"""Services that are asleep: their sockets are open and watched, and the first client starts them.

spawnd neither accepts nor reads: the kernel keeps the client, and tells that there is one. All sleeping sockets
are in one epoll of their own, which the loop watches, so ten thousand of them cost the loop one watch. A socket
leaves that epoll before its service starts, as it is ready for as long as a client waits.

A service that ends with success while a client waits starts again at once. If it leaves that very client waiting
then, too, it serves nobody, and would start without a pause for as long as the client waits. So who waits is noted
after each run that a client has started, while there is no process that could accept, and compared after the next
one: if all are still there, that run counts as a failure. A service that leaves nobody waiting costs no look.

Services that fail are tried again one after the other, so that any number of them takes a bounded share of the time.

With `flush`, the first datagram is noted after each run that has failed. Once as many runs in a row as `MOST_RUNS`
have left the same one, it is dropped, before its socket is watched again.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from supervisor.definitions.service import Slot
from supervisor.errors import StepError
from supervisor.lifecycle import machine
from supervisor.lifecycle.dependencies import obstacle
from supervisor.lifecycle.life import Cause, Life, State, Transition
from supervisor.lifecycle.transaction import Standing, Transaction
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.manager.inspection import Sights, inspect_paths, marks_of, still_seen
from supervisor.manager.unit import Unit, spread
from supervisor.process.children import AnsweringChild, Children
from supervisor.process.failure import failed, failure_of, step
from supervisor.process.held_descriptors import Opened, is_shut
from supervisor.process.paths import Sight
from supervisor.process.waiting import Waiting, are_unserved, can_wait_at, drop_first, look

MOST_RUNS = 3  # that fail with the same datagram
PACE = 0.01  # seconds from one start that follows a failure to the next one, of all services together
UNSERVED = "it has not served the client that it was started for, which still waits"


class Owner(Protocol):
    """The manager of the units."""

    units: dict[str, Unit]
    conflicts: dict[str, set[str]]
    shutting_down: bool

    def event(self, unit: Unit, event: Callable[..., Transition], *args: object) -> None: ...

    def bring_up(
        self, names: Iterable[str], renew: bool, cause: Cause, detail: str = "", ordered: bool = False
    ) -> None: ...

    def standing(self) -> Standing: ...

    def move(self, transaction: Transaction) -> None: ...

    def touch(self, unit: Unit) -> None: ...

    def tell(self, unit: Unit) -> None: ...

    def start_failed(self, unit: Unit, error: StepError) -> None: ...


class Sleepers:
    """The watched sockets of services that are asleep. Owns an epoll; the tables of the units own the sockets."""

    def __init__(self, loop: Loop, children: Children, owner: Owner) -> None:
        self._loop = loop
        self._children = children
        self._owner = owner
        self._epoll: select.epoll | None = None
        self._units: dict[int, Unit] = {}  # by watched descriptor
        self._watched: dict[Unit, tuple[int, ...]] = {}
        self._droppers: dict[Unit, AnsweringChild] = {}
        self._next_retry = 0.0
        self._looked_at: list[Unit] = []  # in the next turn

    def sleep(self, names: Iterable[str]) -> None:
        """Order services to sleep, once the network namespaces of their sockets are there; their rivals go down."""
        owner = self._owner
        if not owner.shutting_down:
            transaction = Transaction(owner.standing())
            transaction.bring_up((name for name in names if not owner.units[name].removed), asleep=True)
            owner.move(transaction)

    def fall_asleep(self, unit: Unit) -> None:
        """Open the missing sockets and watch all of them, unless the last run has left its client waiting."""
        visit, unit.visit = unit.visit, None
        unit.status_text = ""  # of a process that has gone
        try:
            unit.close_shut()
            unit.table.open_local(unit.service)
            table = _places(unit)
            if not table:
                raise failed("sleep", "", 0, "no client can wake it: it has neither a socket nor a FIFO")
        except (StepError, OSError) as error:
            self._owner.start_failed(unit, failure_of(error))
            return
        suspicious, unit.is_suspicious = unit.is_suspicious, False
        if suspicious:
            self._drop_suspects(unit, table)
        elif visit is None:
            self._watch(unit, table)
        else:
            look(self._loop, self._children, table, partial(self._judge, unit, unit.life, visit))

    def _judge(self, unit: Unit, life: Life, before: Waiting, now: Waiting) -> None:
        """Sleep after a run, unless the clients that had waited before it still do."""
        if unit.life is not life:
            return
        unit.left = now
        if are_unserved(before, now):
            self._owner.event(unit, machine.unserved, UNSERVED, spread())
            return
        if before or not now:
            self._owner.event(unit, machine.served)
        self._watch(unit, _places(unit))

    def _drop_suspects(self, unit: Unit, table: dict[Slot, Opened]) -> None:
        """Drop the datagrams that the last runs have failed with, if there were enough of these, and sleep."""
        table = {slot: opened for slot, opened in table.items() if opened.spec.has_datagrams}
        before = unit.suspects
        condemned = {slot: who for slot, (who, runs) in before.items() if runs == MOST_RUNS - 1}

        def done(first: dict[Slot, str], dropped: set[Slot]) -> None:
            self._droppers.pop(unit, None)
            unit.suspects = {
                slot: (who, before[slot][1] + 1 if slot in before and before[slot][0] == who else 1)
                for slot, who in first.items()
                if slot not in dropped
            }
            for slot in dropped:
                unit.flushed += 1
                place = unit.table.as_bound(slot, table[slot].spec).describe()
                log.warning("%s: dropped a datagram at %s: %d runs have failed with it", unit.name, place, MOST_RUNS)
            self._owner.touch(unit)
            if unit.life is life:
                self._watch(unit, _places(unit))

        life = unit.life
        try:
            self._droppers[unit] = drop_first(self._loop, self._children, table, condemned, done)
        except OSError as error:
            log.warning("%s: cannot look at the datagrams that it fails with: %s", unit.name, error.strerror)
            self._watch(unit, _places(unit))

    def _watch(self, unit: Unit, table: dict[Slot, Opened]) -> None:
        """Watch the sockets. Where the kernel has no room, that is a failure: a later try may find some."""
        self.leave(unit)
        self._watched[unit] = tuple(opened.fd for opened in table.values())
        try:
            with step("watch the sockets"):
                for opened in table.values():
                    self._watch_one(unit, opened)
        except StepError as error:
            self.leave(unit)
            self._owner.start_failed(unit, error)

    def _watch_one(self, unit: Unit, opened: Opened) -> None:
        if opened.fd in self._units:  # handed over by a service that is about to end
            self._unwatch(opened.fd)
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.watch(self._epoll.fileno(), select.EPOLLIN, lambda _events: self._ready())
        # a FIFO whose last writer has gone would be ready for as long as it is open
        edge = select.EPOLLET if opened.spec.kind == "file" else 0
        self._epoll.register(opened.fd, select.EPOLLIN | edge)
        self._units[opened.fd] = unit

    def leave(self, unit: Unit) -> None:
        """Watch the sockets of a unit no longer, and drop nothing: before they are used or closed."""
        if unit in self._droppers:
            self._droppers[unit].give_up()
        for fd in self._watched.pop(unit, ()):
            if self._units.get(fd) is unit:
                self._unwatch(fd)
        if self._epoll is not None and not self._units:
            self._loop.unwatch(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _unwatch(self, fd: int) -> None:
        del self._units[fd]
        if self._epoll is not None:
            self._epoll.unregister(fd)

    def _ready(self) -> None:
        """Wake one service: others have their turn, and so have other events, once it has been started."""
        assert self._epoll is not None
        for fd, events in self._epoll.poll(0, 1):
            unit = self._units[fd]
            if events & select.EPOLLHUP and any(map(is_shut, _places(unit).values())):  # by a process that has it, too
                self.leave(unit)
                self.fall_asleep(unit)
                continue
            if events == select.EPOLLHUP:  # of a FIFO without a writer; all other events last until a process comes
                continue
            self.leave(unit)
            if unit.life.failures:
                self._next_retry = max(self._next_retry + PACE, self._loop.clock())
                self._loop.call_at(self._next_retry, partial(self._start, unit, unit.life))
            else:
                self._start(unit, unit.life)

    def _start(self, unit: Unit, life: Life) -> None:
        """Start a service for a client, with what it depends on, unless its life has changed meanwhile."""
        if unit.life is not life:
            return
        owner = self._owner
        unit.visit, unit.left = unit.left or {}, None
        if unit.name in owner.conflicts or obstacle(unit.service, owner.units) is not None:
            owner.bring_up([unit.name], renew=False, cause=Cause.CLIENT, ordered=True)
        elif not owner.shutting_down:  # as usual; a look at all services would take long
            owner.event(unit, machine.start, Cause.CLIENT)

    def keep(self, unit: Unit, renew: bool) -> None:
        """Order a service to sleep on. `renew`: it opens anew the sockets that are gone from their paths."""
        self._owner.event(unit, machine.sleep)
        if renew and unit.life.state is State.ASLEEP:
            unit.is_looked_at = True
            if not self._looked_at:
                self._loop.call_soon(self._look)
            self._looked_at.append(unit)

    def _look(self) -> None:
        """Look at the paths of all of them at once."""
        units, self._looked_at = self._looked_at, []
        inspect_paths(self._loop, self._children, marks_of(units), partial(self._seen, units))

    def _seen(self, units: Sequence[Unit], sights: Sights) -> None:
        for unit in units:
            unit.is_looked_at = False
            if self._owner.units.get(unit.name) is not unit:
                continue
            if unit.life.state is State.ASLEEP and (seen := still_seen(unit, sights)):
                self.open_anew(unit, seen)
            self._owner.tell(unit)

    def open_anew(self, unit: Unit, sights: Mapping[Slot, Sight]) -> None:
        """Open anew what has changed, for a unit without a process."""
        self.leave(unit)
        unit.renew(sights)
        self._owner.event(unit, machine.resumed)


def _places(unit: Unit) -> dict[Slot, Opened]:
    """Return the descriptors at which clients can wait, by slot."""
    return {slot: opened for slot, opened in unit.table if can_wait_at(opened)}
