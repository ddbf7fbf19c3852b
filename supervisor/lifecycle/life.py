"""The life of a service as a plain value: in which state it is, since when, and why.

Times are seconds of the caller's clock, given as `now`.  A `Life` can be written and read
back as it is, so that it outlives the process that made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class State(StrEnum):
    STOPPED = "stopped"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    RELOADING = "reloading"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"
    DONE = "done"


AT_REST = frozenset({State.STOPPED, State.FAILED, State.DONE})
WITH_PROCESS = frozenset({State.STARTING, State.RUNNING, State.RELOADING, State.STOPPING})


class Then(StrEnum):
    """What follows once a stopping process is gone."""

    REST = "rest"
    START = "start"
    FAIL = "fail"
    END = "end"  # it has ended by itself, and well


class Step(StrEnum):
    """How far a start has got; `unheard`: perhaps it is ready, and said so when there was no spawnd to hear it.

    Two belong to a stop.  `teardown`: its function `stop` runs; `last`: it was started for nothing but to be
    stopped, as what it keeps outlives its process.
    """

    CHECK = "check"
    SETUP = "setup"  # its function `start` or `restart` runs
    EXEC = "exec"
    READY = "ready"
    UNHEARD = "unheard"
    TEARDOWN = "teardown"
    LAST = "last"


class Cause(StrEnum):
    """What brought a service into its state or, once it is up, made it start: the last thing that happened to it."""

    NEW = "new"  # nobody has started it yet
    START = "start"  # somebody asked for it, or something that depends on it
    RESTART = "restart"  # somebody asked for it
    STOP = "stop"  # somebody asked for it
    RESET = "reset"  # somebody had its failures forgotten
    CONFLICT = "conflict"  # `other` was started
    DEFINITION = "definition"  # its definition has changed
    REMOVED = "removed"  # it is not defined any more
    SIGNAL = "signal"  # spawnd got its restart_signal
    NAMESPACE = "namespace"  # a network namespace that it or a socket of it is in was made anew
    SHUTDOWN = "shutdown"  # spawnd is to end
    EXIT = "exit"  # its process ended, or none came of a start
    CHECK = "check"  # its check failed
    CHECK_LATE = "check_late"  # its check was not finished in time
    FUNCTION = "function"  # one of its functions failed
    FUNCTION_LATE = "function_late"  # one of its functions was not finished in time
    NOT_READY = "not_ready"  # it was not ready in time
    WATCHDOG = "watchdog"  # it did not feed its watchdog in time


class Act(Enum):
    """What the caller has to do after a transition, in the order given."""

    CHECK = "run the check command"
    CALL_START = "run its function start"
    CALL_RESTART = "run its function restart"
    CALL_STOP = "run its function stop"
    LAUNCH = "open what is not open yet and fork"
    STOP_SIGNAL = "send stop_signal to the main process"
    HANDOVER_SIGNAL = "send handover_signal, or stop_signal where there is none"
    ABORT = "send ABRT to the main process"
    KILL = "send KILL to every process of the service"
    END_LEFT = "end what its functions have left running, then tell `exited`"
    RELEASE = "end what is left of it, close its descriptors, drop its store"


@dataclass(frozen=True, slots=True)
class Life:
    """`deadline` is the time-out of the state, `watchdog_at` that of the watchdog.

    `up_since` is when this run became ready, `failures` counts those in a row, `restarts`
    the starts nobody asked for since the last one that somebody did, `starts` all of them.
    `began` is when its last start began, as nothing held it back any more, `came_up` when that was done; both stay.
    `set_up`: its function `start` has succeeded, and `stop` has not been called since.
    `reason` is for people; `cause` is kept until something else happens, `other` is the service
    that it is about.
    """

    state: State = State.STOPPED
    since: float = 0.0
    reason: str = "never started"
    cause: Cause = Cause.NEW
    other: str = ""
    deadline: float | None = None
    watchdog_at: float | None = None
    up_since: float | None = None
    began: float | None = None
    came_up: float | None = None
    step: Step = Step.EXEC
    then: Then = Then.REST
    killed: bool = False
    set_up: bool = False
    failures: int = 0
    restarts: int = 0
    starts: int = 0

    def due(self) -> float | None:
        """When `timed_out` has to be called, or None."""
        times = [at for at in (self.deadline, self.watchdog_at) if at is not None]
        return min(times) if times else None


Transition = tuple[Life, tuple[Act, ...]]
