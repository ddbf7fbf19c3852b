"""A core without processes: services come up, fail or hang as their plan says, by the real state machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from supervisor.definitions.service import Definitions, Service, Settings, Slot
from supervisor.errors import DefinitionsError, OtherDefinitionsError, SpawnError
from supervisor.lifecycle import machine
from supervisor.lifecycle.dependencies import Obstacle, needed, obstacle
from supervisor.lifecycle.life import AT_REST, Ended, Idleness, Life, State, Step, Transition
from supervisor.lifecycle.plan import Plan, make_plan
from supervisor.lifecycle.transaction import Outcome
from supervisor.log.ring import START, Piece, Position, append, make_ring, since
from supervisor.loop.loop import Loop
from supervisor.process.launch import DescriptorRow
from supervisor.process.paths import Sight
from supervisor.process.run import Answer

EPOCH = 1_700_000_000.25  # what the wall clock says at 0 of the loop's clock


class FakeUnit:
    def __init__(self, service: Service, now: float, internal: bool = False) -> None:
        self.name = service.name
        self.service = service
        self.life = Life(since=now)
        self.internal = internal
        self.pid: int | None = None
        self.status_text = ""
        self.last_exit = ""
        self.last_call = ""
        self.disconnected = ""
        self.flushed = 0
        self.check_output: tuple[str, ...] = ()
        self.waits = ""
        self.obstacle: Obstacle | None = None
        self.undecided = self.stale = ""
        self.is_looked_at = False
        self.lacks_control_socket = False
        self.session_table: int | None = None
        self.ended: Ended | None = None
        self.call_ended: Ended | None = None
        self.next_service: Service | None = None
        self.memory: int | None = None
        self.cpu: float | None = None
        self.idle: Idleness | None = None

    def usage(self) -> tuple[int | None, float | None]:
        return self.memory, self.cpu

    def descriptors(self) -> list[DescriptorRow]:
        rows = [DescriptorRow(n, name, "file /dev/null") for n, name in enumerate(("stdin", "stdout", "stderr"))]
        return [*rows, DescriptorRow(3, "", "udp 127.0.0.1:69"), DescriptorRow(4, "kept", "socket:[1]", True)]


def with_process(service: Service) -> Service:
    """Tests leave out the program; one with functions may be meant to have none."""
    return service if service.has_process or service.functions else replace(service, exec="/bin/x")


class FakeCore:
    """`plans`: what a service does when it is started, `works` (or nothing), `fails`, `hangs`; `stubborn` ones
    do not stop.  `asked` is what was asked of the core, in order.  `files` are the definitions that a reload finds,
    None as long as they are those in force; `problems` is what is wrong with them.
    """

    def __init__(self, loop: Loop, services: Iterable[Service], settings: Settings | None = None) -> None:
        self.loop = loop
        self.units: dict[str, FakeUnit] = {s.name: FakeUnit(with_process(s), loop.clock()) for s in services}
        self.settings = settings or Settings()
        self.plans: dict[str, str] = {}
        self.asked: list[tuple[str, object]] = []
        self.observers: dict[object, Callable[[FakeUnit], None]] = {}
        self.reloads: list[Callable[[str], None]] = []
        self.problems: list[str] = []
        self.files: Definitions | None = None
        self.leaving: set[str] = set()
        self.rings: dict[str, int] = {}
        self._due: set[str] = set()  # those that are to go on
        self.journal = False
        self.settled: dict[str, State] = {}
        self.sights: dict[Slot, Sight] = {}  # by slot, of every service
        self.denied = "/nonexistent"
        self.reopened: dict[str, Outcome] = {}  # of services that write to files

    # the core, each part of which is this object

    @property
    def manager(self) -> FakeCore:
        return self

    changes = side_calls = writer = manager

    def start(self, names: Sequence[str]) -> None:
        self.asked.append(("start", list(names)))
        for name in needed(names, self.services()):
            self.event(name, machine.start)

    def stop(self, names: Sequence[str], *, keeps_sessions: bool = False) -> None:
        self.asked.append(("stop without sessions" if keeps_sessions else "stop", list(names)))
        for name in names:
            self.event(name, machine.stop)

    def is_to_stop(self, name: str) -> bool:
        return False

    def sleep(self, names: Sequence[str]) -> None:
        self.asked.append(("sleep", list(names)))
        for name in names:
            self.event(name, machine.sleep)

    def restart(self, names: Sequence[str], *, ends_sessions: bool = False) -> None:
        self.asked.append(("restart with sessions" if ends_sessions else "restart", list(names)))
        for name in names:
            self.event(name, machine.restart)

    def reset(self, names: Sequence[str]) -> None:
        self.asked.append(("reset", list(names)))
        for name in names:
            self.event(name, machine.reset)

    def reload(self, name: str, done: Callable[[str], None]) -> None:
        self.asked.append(("reload", name))
        match self.plans.get(name):
            case "fails":
                done("it is not running")
            case "hangs":
                self.reloads.append(done)
            case _:
                self.loop.call_soon(partial(done, ""))

    def inspect(self, name: str, done: Callable[[Mapping[Slot, Sight]], None]) -> None:
        done(self.sights)

    def writes_files(self, name: str) -> bool:
        return name in self.reopened

    def reopen(self, name: str, done: Callable[[Outcome], None]) -> None:
        done(self.reopened[name])

    def ask_status(self, name: str, done: Callable[[Answer], None]) -> None:
        self.asked.append(("ask_status", name))
        answer = Answer(False, "status failed: no") if self.plans.get(name) == "fails" else Answer(True, "42 rules")
        self.loop.call_soon(partial(done, answer))

    def signal(self, name: str, signum: int) -> bool:
        self.asked.append(("signal", (name, signum)))
        return self.units[name].pid is not None

    def observe(self, callback: Callable[[FakeUnit], None]) -> Callable[[], None]:
        key = object()
        self.observers[key] = callback
        return lambda: self.observers.__delitem__(key)

    def flush(self) -> None:
        """Remembers what it would have written down."""
        self.settled = {name: unit.life.state for name, unit in self.units.items()}

    def reexec(self, done: Callable[[str], None]) -> None:
        """Fails: only spawnd itself can become another program."""
        self.asked.append(("reexec", None))
        self.loop.call_soon(partial(done, "not executed anew: no such program"))

    def check(self, done: Callable[[int, list[str], Sequence[str]], None]) -> None:
        notices = self.files.notices if self.files is not None else ()
        self.loop.call_soon(partial(done, 0 if self.problems else len(self.units), self.problems, notices))

    def plan(self, reloads: bool, done: Callable[[Plan | SpawnError], None]) -> None:
        self.loop.call_soon(lambda: done(self._plan(reloads)))

    def apply(self, expect: str, reloads: bool, done: Callable[[Plan | SpawnError], None]) -> None:
        self.asked.append(("apply", expect))

        def change() -> None:
            made = self._plan(reloads)
            if isinstance(made, Plan) and expect not in ("", made.definitions.digest):
                done(OtherDefinitionsError(made.definitions.digest))
                return
            if isinstance(made, Plan):
                self._carry_out(made)
            done(made)

        self.loop.call_soon(change)

    def services(self) -> Mapping[str, Service]:
        return {name: unit.service for name, unit in self.units.items()}

    def output(self, name: str, position: Position = START) -> Piece | None:
        if name == "mute":
            raise LookupError(name)
        if self.journal:
            return None
        return since(self.rings[name], position) if name in self.rings else Piece(b"", 0, START)

    def end(self) -> None:
        self.asked.append(("end", None))

    def unix_time(self, monotonic: float) -> float:
        return EPOCH + monotonic

    # what goes on behind it

    def write(self, name: str, data: bytes) -> None:
        """The service writes to its log; `close` has to follow."""
        if name not in self.rings:
            self.rings[name] = make_ring(name)
        append(self.rings[name], data)

    def close(self) -> None:
        while self.rings:
            os.close(self.rings.popitem()[1])

    def define(self, service: Service) -> None:
        """One more service."""
        self.units[service.name] = FakeUnit(with_process(service), self.loop.clock())
        self.tell(self.units[service.name])

    def remove(self, name: str) -> None:
        """It is not defined any more."""
        self.tell(self.units.pop(name))

    def tell(self, unit: FakeUnit) -> None:
        for callback in list(self.observers.values()):
            callback(unit)

    def event(self, name: str, event: Callable[..., Transition], *args: object) -> None:
        """Put one event through the state machine, tell the observers, go on by the plan."""
        unit = self.units[name]
        before, (unit.life, _) = unit.life, event(unit.service, unit.life, self.loop.clock(), *args)
        if unit.life.state is before.state:
            return
        unit.pid = 1000 + len(self.asked) if unit.life.state in (State.RUNNING, State.RELOADING) else None
        if name in self.leaving and unit.life.state in AT_REST:
            del self.units[name]
        self.tell(unit)
        for other in self.units:
            if other not in self._due:
                self._due.add(other)
                self.loop.call_soon(partial(self._go_on, other))

    def fail_for_good(self, name: str, reason: str) -> None:
        """The service ends and has no failures left."""
        unit = self.units[name]
        limit = unit.service.start_limit or 1
        unit.life = Life(State.STARTING, self.loop.clock(), failures=limit - 1)
        self.event(name, machine.exited, False, reason, 0.0)

    def _plan(self, reloads: bool) -> Plan | DefinitionsError:
        if self.problems:
            return DefinitionsError(self.problems)
        old = Definitions(dict(self.services()), self.settings)
        lives = {name: unit.life for name, unit in self.units.items()}
        return make_plan(old, lives, (), self.files or old, reloads)

    def _carry_out(self, plan: Plan) -> None:
        self.settings = plan.definitions.settings
        for name, service in plan.definitions.services.items():
            self.units.setdefault(name, FakeUnit(service, self.loop.clock())).service = service
        for name in self.units.keys() - plan.definitions.services.keys():
            self.leaving.add(name)
            if self.units[name].life.state in AT_REST:
                del self.units[name]
        for name in plan.transaction.down:
            self.event(name, machine.stop)
        for name, up in plan.transaction.up.items():
            self.event(name, machine.restart if up.renew else machine.start)

    def _go_on(self, name: str) -> None:
        self._due.discard(name)
        unit = self.units.get(name)
        if unit is None:
            return
        plan = self.plans.get(name, "works")
        match unit.life.state:
            case State.WAITING:
                before = unit.waits
                unit.obstacle = obstacle(unit.service, self.units)
                unit.waits = unit.obstacle.describe(self.units) if unit.obstacle is not None else ""
                if unit.waits and unit.waits != before:
                    self.tell(unit)
                if not unit.waits:
                    self.event(name, machine.dependencies_met)
            case State.STARTING if plan == "works" and unit.life.step is Step.EXEC:
                self.event(name, machine.executed)
            case State.STARTING if plan == "fails":
                self.event(name, machine.exited, False, "exited with status 1", 0.0)
            case State.RUNNING if unit.service.task:
                self.event(name, machine.exited, True, "exited with status 0", 0.0)
            case State.STOPPING if plan != "stubborn":
                self.event(name, machine.exited, True, "killed by TERM", 0.0)
