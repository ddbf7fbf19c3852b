"""The life of a service as a plain value: its state, the time and cause of that, and the next deadline.

Times are seconds of the caller's clock, given as `now`. A `Life` can be written and read back unchanged, so
it outlives the process that made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

from supervisor.definitions.service import Service

LEAST_PERIOD = 1.0  # seconds between two looks whether a service is idle, unless `idle_stop` is shorter
TWO_FIGURES = 99.5  # percent from which on there are more than two figures before the point
THREE_FIGURES = 999.5  # seconds from which a span has more than three figures before the point


class State(StrEnum):
    STOPPED = "stopped"
    ASLEEP = "asleep"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    RELOADING = "reloading"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"
    DONE = "done"


AT_REST = frozenset({State.STOPPED, State.FAILED, State.DONE})
UP = frozenset({State.RUNNING, State.RELOADING})
RUNS = frozenset({State.STARTING, *UP})
WITH_PROCESS = frozenset({*RUNS, State.STOPPING})


class Then(StrEnum):
    """Next event once a stopping process is gone; of a waiting service, whether it is to `START` or to `SLEEP`."""

    REST = "rest"
    START = "start"
    SLEEP = "sleep"
    FAIL = "fail"
    END = "end"  # it has ended well by itself


class Step(StrEnum):
    """Progress of a start or a stop.

    `unheard`: the service may be ready, and may have reported that while there was no spawnd.
    Four steps belong to a stop. `drain`: at a restart, the process keeps running until it has accepted the
    clients of a socket that is to be replaced. `teardown`: the function `stop` runs. `last`: the process was
    started only to be stopped, to end things that it keeps beyond its own life, and has to become ready first.
    `told`: it has its stop signal.
    """

    CHECK = "check"
    SETUP = "setup"  # its function `start` or `restart` runs
    EXEC = "exec"
    READY = "ready"
    UNHEARD = "unheard"
    DRAIN = "drain"
    TEARDOWN = "teardown"
    LAST = "last"
    TOLD = "told"


class Cause(StrEnum):
    """The last event of a service: the reason for its state or, once it is up, for its start."""

    NEW = "new"  # never started
    START = "start"  # an operator or a dependent asked for it
    RESTART = "restart"  # an operator asked for it
    STOP = "stop"  # an operator asked for it
    SLEEP = "sleep"  # it is to have its sockets and no process, until a client comes
    IDLE = "idle"  # nobody has used it for `idle_stop`
    CLIENT = "client"  # a client came while it was asleep
    UNSERVED = "unserved"  # it has ended well, and the client that had woken it still waits
    RESET = "reset"  # an operator cleared its failures
    CONFLICT = "conflict"  # `other` was started
    DEFINITION = "definition"  # its definition has changed
    REMOVED = "removed"  # it is not defined any more
    SIGNAL = "signal"  # spawnd got its restart_signal
    NAMESPACE = "namespace"  # the network namespace of it or of a socket was recreated
    SHUTDOWN = "shutdown"  # spawnd is to end
    KEPT = "kept"  # no process could be started, after an order to stop, to end what it keeps
    EXIT = "exit"  # its process ended, or its start made no process
    CHECK = "check"  # its check failed
    CHECK_LATE = "check_late"  # its check was not finished in time
    FUNCTION = "function"  # one of its functions failed
    FUNCTION_LATE = "function_late"  # one of its functions was not finished in time
    NOT_READY = "not_ready"  # it was not ready in time
    WATCHDOG = "watchdog"  # it missed its watchdog


OF_FUNCTIONS = frozenset({Cause.FUNCTION, Cause.FUNCTION_LATE})


class Act(Enum):
    """Orders to the caller after a transition, to be carried out in order."""

    CHECK = "run the check command"
    CALL_START = "run its function start"
    CALL_RESTART = "run its function restart"
    CALL_STOP = "run its function stop"
    SLEEP = "open what is not open yet, and wait for clients"
    DRAIN = "bind the sockets gone from their paths anew, report `drained` once no client waits on the old ones"
    LAUNCH = "open what is not open yet and fork"
    STOP_SIGNAL = "send stop_signal to the main process, or to every process of the service, depending on kill_mode"
    HANDOVER_SIGNAL = "send handover_signal to the main process, or stop the service if it has none"
    ABORT = "send ABRT to the main process"
    KILL = "send KILL to every process of the service"
    END_LEFT = "end what its functions or acceptors have left running, then tell `exited`"
    RELEASE = "end what is left of it, close its descriptors, drop its store"


class Life(NamedTuple):
    """State, causes, times and counts of a service.

    A tuple, because `_replace` takes a fifth of the time of `dataclasses.replace`.

    `deadline` is the time-out of the state, `watchdog_at` that of the watchdog.

    `up_since` is when this run became ready. `failures` counts failures in a row, `restarts` the automatic
    starts since the last ordered one, `starts` all starts.
    `asked` is when the service was last started from rest. `began` is when nothing held it back any more, and
    `came_up` when it was up, each for the first time since then (a task counts as up when it is done, because its
    dependents start then): others had to wait for these. Restarts, ordered or not, change none of the three.
    `set_up`: its function `start` has succeeded, and `stop` has not been called since. Without a process that holds
    only until a restart, or after a call of `stop` that could not be made.
    `final`: its process has ended with a status after which its definition wants no restart.
    `kept`: a program of it has run since things that it may keep were last ended; at rest only if it does keep them.
    `keeps_sessions` is whether sessions of an acceptor live on, if an order says so: otherwise a stop ends them. At
    rest it is true where they do.
    `reason` is for people. `cause` is kept until the next event, `other` is the service that it is about, and
    `detail` a sentence with more than `cause`, if there is one.
    `stop_failure` is the failure of its function `stop` after that event, if any.
    """

    state: State = State.STOPPED
    since: float = 0.0
    reason: str = "never started"
    cause: Cause = Cause.NEW
    other: str = ""
    detail: str = ""
    deadline: float | None = None
    watchdog_at: float | None = None
    up_since: float | None = None
    asked: float | None = None
    began: float | None = None
    came_up: float | None = None
    step: Step = Step.EXEC
    then: Then = Then.REST
    killed: bool = False
    set_up: bool = False
    final: bool = False
    kept: bool = False
    keeps_sessions: bool | None = None
    failures: int = 0
    restarts: int = 0
    starts: int = 0
    stop_failure: str = ""

    def due(self) -> float | None:
        """Return when `timed_out` has to be called, or None."""
        times = [at for at in (self.deadline, self.watchdog_at) if at is not None]
        return min(times) if times else None


class Idleness(NamedTuple):
    """Use of a running service with `idle_stop`, as a look from time to time finds it.

    `since` is the first of the looks that have found no use, None if the last one has found some. `busy` says what use
    that was. `due` is the time of the next look, None while the service itself says that it is busy. `cpu_s` is the CPU
    time that it had used by `looked`, and `share` the share of a CPU that it used between the last two looks; None if
    unknown.
    """

    since: float | None = None
    busy: str = ""
    due: float | None = None
    looked: float = 0.0
    cpu_s: float | None = None
    share: float | None = None

    def is_over(self, service: Service, now: float) -> bool:
        """Whether nobody has used the service for `idle_stop`."""
        known = self.share is not None and self.since is not None and service.idle_stop is not None
        return known and now - (self.since or 0.0) >= (service.idle_stop or 0.0)


Transition = tuple[Life, tuple[Act, ...]]


def is_wanted(life: Life) -> bool:
    """Return whether a service has, or will have, a process unless it is stopped; also true after a failure."""
    return life.state not in (State.STOPPED, State.DONE) and not goes_down(life)


def comes_up(life: Life) -> bool:
    """Return whether a service is up or on its way, so that a start has no effect."""
    if life.state is State.STOPPING:
        return life.then is Then.START
    return (life.state is State.WAITING and not lies_down(life)) or life.state in RUNS


def lies_down(life: Life) -> bool:
    """Return whether a service is about to be asleep: once its process is gone, or its sockets can be opened."""
    return life.state in (State.WAITING, State.STOPPING) and life.then is Then.SLEEP


def goes_down(life: Life) -> bool:
    """Return whether a service is stopping for good."""
    return life.state is State.STOPPING and life.then is Then.REST


def runs(service: Service, life: Life) -> bool:
    """Return whether there is a process whose end will be reported: a check, a function, or the main process."""
    return life.state in WITH_PROCESS and (service.has_process or life.state not in UP)


def spares_others(service: Service, life: Life, clean: bool = False) -> bool:
    """Return whether processes besides the one that has just ended live on; not after a stop.

    `clean` is whether that process ended well, if known: processes that a function has started are meant to stay.
    """
    if life.step is Step.SETUP and life.state is State.STARTING:
        return clean
    # processes of a function stay for the next function
    if life.step is Step.SETUP and life.state is State.STOPPING and clean:
        return "stop" in service.functions or is_renewed(service, life)
    if service.accept is not None:
        return keeps_sessions(life)
    return service.kill_mode == "process" and not goes_down(life)


def spares_older(service: Service, life: Life) -> bool:
    """Return whether processes may live on that are older than the present one, or there is none.

    Those that a function has started are older than the process, and the end of a service that stops follows.
    """
    if life.state in AT_REST:
        return bool(life.keeps_sessions)
    return life.state is State.STOPPING or life.set_up or spares_others(service, life)


def keeps_sessions(life: Life) -> bool:
    """Return whether the sessions of a service with `accept` live on: until a stop, unless the order says otherwise."""
    return not goes_down(life) if life.keeps_sessions is None else life.keeps_sessions


def in_call(life: Life) -> bool:
    """Return whether the process that runs, or has just ended, is a call of a function."""
    return life.step in (Step.SETUP, Step.TEARDOWN) and life.state in (State.STARTING, State.STOPPING)


def goes_into_background(service: Service, life: Life) -> bool:
    """Return whether the first process may end well and leave another one that is the service."""
    return service.forking and life.state is State.STARTING and life.step not in (Step.CHECK, Step.SETUP)


def leaves_unseen(service: Service, life: Life) -> bool:
    """Return whether the first process, which has ended after it was told to stop, may have left a daemon.

    No search has begun: the service was not up, and its first process still ran. Once time is up, there is none.
    """
    in_set_up = life.step in (Step.CHECK, Step.SETUP, Step.TEARDOWN)
    told = life.state is State.STOPPING and life.up_since is None and not life.killed
    return service.forking and told and not in_set_up


def lets_end(service: Service, life: Life) -> bool:
    """Return whether leftovers of the main process are told to end and given time, rather than killed.

    This is the case after an order; handling a crash takes no longer because of leftovers.
    """
    ordered = life.state is State.STOPPING and life.then in (Then.REST, Then.START, Then.SLEEP) and not life.killed
    if service.accept is not None and keeps_sessions(life):
        return False
    was_up = service.has_process and life.step not in (Step.CHECK, Step.SETUP, Step.TEARDOWN)
    return ordered and was_up and service.kill_mode in ("all", "group")


def tells_all(service: Service, life: Life) -> bool:
    """Return whether an order to stop goes to every process of the service rather than to the main one alone."""
    hands_over = life.then in (Then.START, Then.SLEEP) and service.handover_signal is not None
    return service.kill_mode == "group" and not hands_over


def begins_process(life: Life) -> bool:
    """Return whether a process is being started: to come up, to be stopped at once, or for the function `stop`."""
    is_for_stop = life.state is State.STOPPING and life.step in (Step.LAST, Step.TEARDOWN) and not life.killed
    return life.state is State.STARTING or is_for_stop


def is_renewed(service: Service, life: Life) -> bool:
    """Return whether the function `restart` comes next; it cannot know a set-up by another definition."""
    return life.then is Then.START and life.cause is not Cause.DEFINITION and "restart" in service.functions


def is_to_tear_down(service: Service, life: Life) -> bool:
    """Return whether the function `stop` comes next, once the process is gone."""
    return life.set_up and "stop" in service.functions


def keeps(service: Service, life: Life) -> bool:
    """Return whether things may outlive the process that only another process, not started yet, can end."""
    hands_over = service.kill_mode == "process" and service.handover_signal is not None
    return hands_over and service.has_process and not service.functions and has_kept(life)


def has_kept(life: Life) -> bool:
    """Return whether things may have outlived the process, if the definition lets them."""
    return life.kept or life.cause is Cause.KEPT  # earlier versions noted the cause alone


def of_earlier_version(service: Service, life: Life) -> Life:
    """Return the life in a record that does not say whether things are kept: they may be if a program was started."""
    told = life.step in (Step.LAST, Step.TOLD) or life.state in (State.STOPPED, State.DONE)
    kept = life._replace(kept=life.starts > 0 and not told)
    return kept if keeps(service, kept) else life


def is_down(life: Life) -> bool:
    """Return whether an order to stop has no effect: the service is at rest, and nothing is left of it to be ended.

    A service may keep things or sessions, or be set up.
    """
    return life.state in AT_REST and not (has_kept(life) or life.set_up or life.keeps_sessions)


def has_executed(life: Life) -> bool:
    """Return whether the program of the present start is known to have run."""
    return life.state in UP or (life.state is State.STARTING and life.step in (Step.READY, Step.UNHEARD))


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a service's last process, as a plain value that can be written and read back.

    A process that exited has a `status`. A process that was killed has a `signum` and the name `signal`. If
    there was no process, or it never reached its program, `step` names the failed step, with its `path`,
    `errno` (0: none) and `cause`; `line` is the line to correct in that path, 0 without one. `function` is the
    function that it ran, if any, and `cause` its message. A `cause` alone: the first process of a service with
    `forking` has left no other. `left` counts the leftover processes, as of a program that goes into the
    background. `undecided` says why no process of a service with `forking` was chosen as the daemon. If all
    fields are empty, the end was unseen.
    """

    status: int | None = None
    signum: int | None = None
    signal: str = ""
    core: bool = False
    out_of_memory: bool = False
    step: str = ""
    path: str = ""
    errno: int = 0
    cause: str = ""
    line: int = 0
    function: str = ""
    left: int = 0
    undecided: str = ""

    @property
    def has_left_nothing(self) -> bool:
        """Whether the process should have left another one in the background, and did not."""
        return bool(self.cause) and not self.step and not self.function

    @classmethod
    def of_step(cls, step: str, path: str, errno: int, cause: str, line: int = 0) -> Ended:
        return cls(step=step, path=path, errno=errno, cause=cause, line=line)


def span(seconds: float) -> str:
    """Return a span with three figures, and all figures of whole seconds: `0.205 s`, `3.77 s`, `90 s`, `3604 s`."""
    return f"{seconds:.3g} s" if seconds < THREE_FIGURES else f"{seconds:.0f} s"


def look_period(idle_stop: float) -> float:
    """Return the seconds between two looks: a tenth of `idle_stop`, but at least one if that is longer."""
    return min(idle_stop, max(LEAST_PERIOD, idle_stop / 10))


def looked_at(service: Service, idle: Idleness, now: float, use: str, cpu_s: float | None) -> Idleness:
    """Return the idleness after a look that has found the `use`, '' for none, and the CPU time so far.

    An unknown CPU time, as at the first look after a loss of spawnd, neither ends nor begins idleness.
    """
    share = None
    if cpu_s is not None and idle.cpu_s is not None and now > idle.looked:
        share = max(0.0, cpu_s - idle.cpu_s) / (now - idle.looked)
        if not use and share > service.idle_cpu:
            percent = share * 100
            use = f"{percent:.2g} % CPU" if percent < TWO_FIGURES else f"{percent:.0f} % CPU"
    since = now if idle.since is None and share is not None else idle.since
    due = now + look_period(service.idle_stop or 0.0)
    return Idleness(None if use else since, use, due, now, cpu_s, share)
