"""A service and its life, for tests of the state machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor.definitions.service import Backoff, Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import (
    Act,
    Life,
    State,
    Transition,
)

NOW = 1000.0


class Case:
    """A service and its life; each call is an event, `acts` what the last one asked for."""

    def __init__(self, **keys: Any) -> None:
        keys.setdefault("backoff", Backoff(jitter=0))
        self.service = Service("a", exec="/bin/a", **keys)
        self.life = Life()
        self.now = NOW
        self.acts: tuple[Act, ...] = ()

    def __call__(self, event: Callable[..., Transition], *args: Any) -> tuple[State, tuple[Act, ...]]:
        self.life, self.acts = event(self.service, self.life, self.now, *args)
        return self.life.state, self.acts

    def exited(
        self, clean: bool = False, reason: str = "exited with status 1", status: int | None = None
    ) -> tuple[State, tuple[Act, ...]]:
        return self(machine.exited, clean, reason, 0.0, status)

    def launched(self) -> Case:
        self(machine.start)
        assert self(machine.dependencies_met) == (State.STARTING, (Act.LAUNCH,))
        return self

    def running(self) -> Case:
        self.launched()
        self(machine.executed)
        if self.service.ready != "exec":
            self(machine.ready)
        assert self.life.state is State.RUNNING
        return self

    def stopping(self) -> Case:
        self.running()
        self(machine.stop)
        return self

    def failed_once(self) -> Case:
        self.launched().exited()
        return self


# one life in each state

CASES: dict[State, Callable[[], Case]] = {
    State.STOPPED: Case,
    State.ASLEEP: lambda: _after(Case(demand=True, start_limit=None), machine.sleep, machine.dependencies_met),
    State.WAITING: lambda: _after(Case(), machine.start),
    State.STARTING: lambda: Case().launched(),
    State.RUNNING: lambda: Case().running(),
    State.RELOADING: lambda: _after(Case().running(), machine.reloading),
    State.STOPPING: lambda: Case().stopping(),
    State.BACKOFF: lambda: Case().failed_once(),
    State.FAILED: lambda: Case(start_limit=1).failed_once(),
    State.DONE: lambda: _done(Case(task=True).running()),
}


def _after(case: Case, *events: Callable[..., Transition]) -> Case:
    for event in events:
        case(event)
    return case


def _done(case: Case) -> Case:
    case.exited(clean=True)
    return case
