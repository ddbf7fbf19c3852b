"""The reason why a service does or does not run, followed to its root, and advice for the operator."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum
from typing import NamedTuple, Protocol

from supervisor.definitions.service import NULL_OUT, Service
from supervisor.lifecycle.dependencies import Hold, Obstacle, obstacle
from supervisor.lifecycle.life import AT_REST, OF_FUNCTIONS, Cause, Ended, Idleness, Life, State, Then, is_down

ENDLESS = 3  # ends with status 0 in a row after which the service gets a hint
KEYS_OF_STEPS = {  # steps of a start, with the keys that asked for them; `set KEY` names its key itself
    "exec": "exec", "change directory": "cwd", "chroot": "chroot", "open": "fd", "connect": "fd", "read": "env_file",
    "enter network namespace": "netns",
}  # fmt: skip


class Kind(StrEnum):
    """The kind of reason for the state of a service."""

    RUNNING = "running"
    DONE = "done"  # a task that has succeeded
    STARTING = "starting"  # about to run
    ASLEEP = "asleep"  # no process, until a client comes
    # another service, `other`, is in the way
    DEPENDENCY = "dependency"
    ORDER = "order"
    CONFLICT = "conflict"  # stopped for `other`, or waits until it has stopped
    ADDRESS = "address"  # also if none of our services has the address
    # an order, or the end of the process, led to this state
    NOT_STARTED = "not_started"
    STOPPED = "stopped"
    CLIENT = "client"
    RESTART = "restart"
    RESTART_SIGNAL = "restart_signal"
    NAMESPACE = "namespace"
    RESET = "reset"
    DEFINITION = "definition"
    REMOVED = "removed"
    SHUTDOWN = "shutdown"
    ENDED = "ended"  # by itself, and without a restart
    UNDEFINED = "undefined"
    # failures
    EXIT = "exit"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    SETUP = "setup"
    CHECK = "check"
    FUNCTION = "function"
    FUNCTION_LATE = "function_late"
    NOT_READY = "not_ready"
    UNSERVED = "unserved"
    WATCHDOG = "watchdog"


class Subject(Protocol):
    """A service with its life and everything else known about it."""

    @property
    def service(self) -> Service: ...

    @property
    def life(self) -> Life: ...

    @property
    def ended(self) -> Ended | None: ...

    @property
    def call_ended(self) -> Ended | None: ...

    @property
    def obstacle(self) -> Obstacle | None: ...

    @property
    def undecided(self) -> str: ...

    @property
    def idle(self) -> Idleness | None: ...

    @property
    def stale(self) -> str: ...


class Link(NamedTuple):
    """A service of the chain; `subject` is None if it is not defined. The reason may name an `other` service.

    If `other` holds the service back, the next link has the reason of `other`.
    """

    name: str
    kind: Kind
    subject: Subject | None
    other: str = ""


HOLDS = {
    Hold.DEPENDS: Kind.DEPENDENCY,
    Hold.AFTER: Kind.ORDER,
    Hold.CONFLICT: Kind.CONFLICT,
    Hold.ADDRESS: Kind.ADDRESS,
}
ORDERS = {
    Cause.NEW: Kind.NOT_STARTED,
    Cause.SLEEP: Kind.ASLEEP,
    Cause.IDLE: Kind.ASLEEP,
    Cause.CLIENT: Kind.CLIENT,
    Cause.START: Kind.RESTART,  # while the service was stopping
    Cause.RESTART: Kind.RESTART,
    Cause.STOP: Kind.STOPPED,
    Cause.RESET: Kind.RESET,
    Cause.CONFLICT: Kind.CONFLICT,
    Cause.DEFINITION: Kind.DEFINITION,
    Cause.REMOVED: Kind.REMOVED,
    Cause.SIGNAL: Kind.RESTART_SIGNAL,
    Cause.NAMESPACE: Kind.NAMESPACE,
    Cause.SHUTDOWN: Kind.SHUTDOWN,
}
FAILURES = {
    Cause.CHECK: Kind.CHECK,
    Cause.CHECK_LATE: Kind.CHECK,
    Cause.FUNCTION: Kind.FUNCTION,
    Cause.FUNCTION_LATE: Kind.FUNCTION_LATE,
    Cause.NOT_READY: Kind.NOT_READY,
    Cause.UNSERVED: Kind.UNSERVED,
    Cause.WATCHDOG: Kind.WATCHDOG,
}


def chain(name: str, units: Mapping[str, Subject], conflicts: Mapping[str, Iterable[str]]) -> tuple[Link, ...]:
    """Return the service, the service that it waits for, and so on; the last link is the root.

    `conflicts` has for each name the names in conflict with it.
    """
    links: list[Link] = []
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        subject = units.get(name)
        held = _obstacle(subject, units, conflicts.get(name, ())) if subject is not None else None
        if subject is None or held is None:
            links.append(link(name, subject))
            break
        links.append(Link(name, HOLDS[held.hold], subject, held.name))
        name = held.name
    return tuple(links)


def _obstacle(subject: Subject, units: Mapping[str, Subject], rivals: Iterable[str]) -> Obstacle | None:
    if subject.life.state is not State.WAITING:
        return None
    found = obstacle(subject.service, units, sorted(rivals))
    # Lives tell nothing about addresses: this obstacle was found when the service was to start.
    by_address = subject.obstacle is not None and subject.obstacle.hold is Hold.ADDRESS
    return subject.obstacle if found is None and by_address else found


def link(name: str, subject: Subject | None) -> Link:
    """Return the link of a service that nothing holds back."""
    if subject is None:
        return Link(name, Kind.UNDEFINED, None)
    return Link(name, _kind(subject), subject, subject.life.other)


def _kind(subject: Subject) -> Kind:
    life = subject.life
    match life.state:
        case State.RUNNING | State.RELOADING:
            return Kind.RUNNING
        case State.WAITING | State.STARTING:
            return Kind.STARTING
        case State.DONE:
            return Kind.DONE
        case State.ASLEEP:
            return Kind.ASLEEP
        case State.STOPPED:
            return ORDERS.get(life.cause, Kind.ENDED)
        case State.STOPPING if life.then not in (Then.FAIL, Then.END):
            return ORDERS.get(life.cause, Kind.STOPPED)
        case State.STOPPING | State.BACKOFF | State.FAILED:
            return failure(subject)


def failure(subject: Subject) -> Kind:
    """Return the kind of a service's last failure."""
    ended = subject.ended
    if subject.life.cause in FAILURES:
        return FAILURES[subject.life.cause]
    if ended is None:
        return Kind.EXIT
    if ended.step:
        return Kind.ADDRESS if ended.errno == errno.EADDRINUSE else Kind.SETUP
    if ended.out_of_memory:
        return Kind.OUT_OF_MEMORY
    return Kind.SIGNAL if ended.signum is not None else Kind.EXIT


def end_of(subject: Subject) -> Ended | None:
    """Return the end that explains the state: that of a function that failed, else that of the last process."""
    if subject.life.cause in OF_FUNCTIONS and subject.call_ended is not None:
        return subject.call_ended
    return subject.ended  # older versions kept the end of a function there as well


def last_restart(subject: Subject) -> Kind | None:
    """Return the reason for the last restart of a service that is up.

    None if it has not been restarted since its start.
    """
    cause = subject.life.cause
    if cause in (Cause.RESTART, Cause.DEFINITION, Cause.SIGNAL, Cause.NAMESPACE):
        return ORDERS[cause]
    return failure(subject) if subject.life.restarts else None


# failures of a program, which may have printed the reason
OF_A_PROGRAM = frozenset({
    Kind.EXIT, Kind.SIGNAL, Kind.OUT_OF_MEMORY, Kind.NOT_READY, Kind.WATCHDOG,
})  # fmt: skip


class Output(Enum):
    """The known part of the output that a service has written to its `log()`."""

    SOMETHING = "some is kept"
    NOTHING = "none is kept"
    UNKNOWN = "the journal has it, if there is any"


def output_hint(subject: Subject) -> str:
    """Return how to keep the output of a program that has failed.

    '' if the output is kept, or if no program has failed.
    """
    if subject.life.state not in (State.BACKOFF, State.FAILED):
        return ""
    return _keep_output(subject, failure(subject))


def _keep_output(subject: Subject, kind: Kind | None) -> str:
    service = subject.service
    if kind not in OF_A_PROGRAM or not service.loses_stderr:
        return ""
    what = "output" if service.stdout == NULL_OUT else "stderr"
    return f"its {what} is not kept: add `stderr = log()`"


def hint(root: Link, output: Output = Output.SOMETHING) -> str:
    """Return advice for the operator, '' if there is nothing to do."""
    subject, name = root.subject, root.name
    if subject is not None and root.kind is Kind.RUNNING:
        renew = f"correct that, then run `spawnctl restart {name}`" if subject.stale else ""
        return "; ".join(filter(None, (renew, _keep_output(subject, last_restart(subject)))))
    if subject is None or root.kind in (Kind.STARTING, Kind.SHUTDOWN, Kind.REMOVED):
        return ""
    match subject.life.state:
        case State.STOPPING if subject.life.killed:
            return "the kernel holds them, perhaps for a file system that does not answer: see /proc/PID/stack"
        case State.STOPPING:
            return f"`spawnctl signal KILL {name}` does not wait for it" if subject.life.deadline is None else ""
        case State.BACKOFF:
            return f"{_look(root, output)}`spawnctl start {name}` tries again at once"
        case State.FAILED if subject.life.cause in (Cause.KEPT, Cause.FUNCTION) and not is_down(subject.life):
            return f"{_look(root, output)}fix that, then run `spawnctl stop {name}` again"
        case State.FAILED:
            return f"{_look(root, output)}fix that, then run `spawnctl start {name}`{_kept(subject)}"
        case State.DONE:
            return f"`spawnctl start {name}` runs it again"
        case State.ASLEEP if subject.life.failures and subject.ended is not None and subject.ended.step:
            return f"{_place(subject)}`spawnctl start {name}` tries again at once"
    if root.kind is Kind.ENDED and subject.ended is not None and subject.ended.left:
        return f"{_left(subject.service, subject.ended)}; `spawnctl start {name}` starts it"
    if root.kind is Kind.CONFLICT:
        return f"`spawnctl start {name}` starts it, and stops {root.other}"
    return f"`spawnctl start {name}` starts it{_kept(subject)}"


def _kept(subject: Subject) -> str:
    life, stop = subject.life, f"; `spawnctl stop {subject.service.name}`"
    if life.state in AT_REST and life.keeps_sessions:
        return f"{stop} ends its sessions, if there are any left"
    if life.state not in AT_REST or not (life.kept or life.set_up):
        return ""
    return f"{stop} calls its function stop" if life.set_up else f"{stop} ends what it keeps"


def background(service: Service) -> str:
    """Return how to define a program that leaves processes behind when it ends."""
    if service.forking:
        return "`pid_file` tells which of its processes is to be supervised"
    return "does it go into the background? Have it stay in the foreground, or add `forking = true`"


def _left(service: Service, ended: Ended) -> str:
    may_be_task = ended.status == 0 and not service.task and not service.forking
    return f"{background(service)}{'; if it has done its work by then, add `task = true`' if may_be_task else ''}"


def endless(subject: Subject) -> str:
    """Return a guess about a service that keeps ending with status 0; '' for any other."""
    service, ended = subject.service, end_of(subject)
    ends_well = ended is not None and ended.status == 0 and not ended.step and not ended.function
    is_to_last = service.restart == "always" and not service.task and not service.demand
    if not ends_well or not is_to_last or subject.life.failures < ENDLESS:
        return ""
    either = "is it a task (`task = true`), or does it go into the background (`forking = true`)?"
    return f"it ends with status 0 each time: {either}"


def place(service: Service, ended: Ended | None) -> str:
    """Return the bad line of a file of variables, or the line of the definition with the key of the failed step.

    Without such a key, return the first line of the definition; '' for a service without a file.
    """
    if ended is not None and ended.line:
        return f"correct line {ended.line} of {ended.path}"
    step = ended.step if ended is not None else ""
    key = KEYS_OF_STEPS.get(step, step.removeprefix("set "))
    line = service.lines.get(key, service.line)
    return f"see {service.file}:{line}" if service.file else ""


def _place(subject: Subject) -> str:
    found = place(subject.service, subject.ended)
    return f"{found}; " if found else ""


def _look(root: Link, output: Output) -> str:
    if root.subject is None:
        return ""
    service, ended = root.subject.service, end_of(root.subject)
    if ended is not None and ended.left:
        return f"{_left(service, ended)}; "
    if ended is not None and ended.undecided:
        own = "have it write the process id of its daemon there, or leave out `pid_file`"
        return f"{own if service.pid_file else background(service)}; "
    if ended is not None and ended.has_left_nothing:
        return f"{_place(root.subject)}a program that stays in the foreground, or is a task, needs no `forking`; "
    if question := endless(root.subject):
        return f"{question}; "
    if root.kind is Kind.ADDRESS:
        return "find the process with `ss -lnptux`; "
    if root.kind is Kind.SETUP:
        return _place(root.subject)
    if lost := output_hint(root.subject):
        return f"{lost}; "
    return "".join(f"{place}; " for place in _said(root, service, output))


def _said(root: Link, service: Service, output: Output) -> list[str]:
    """Return the places of a program's output."""
    logs = f"`spawnctl logs {root.name}`"
    of_log = {
        Output.SOMETHING: f"{logs} shows what it said",
        Output.NOTHING: "it has written nothing to its `log()`",
        Output.UNKNOWN: f"{logs} shows what the journal has of it",
    }
    streams = {"stdout": service.stdout, "stderr": service.stderr}
    places = []
    if "log" in (service.stdout.kind, service.stderr.kind):
        places.append(of_log[output])
    if root.kind in OF_A_PROGRAM:
        kept = {slot: spec for slot, spec in streams.items() if spec.path != NULL_OUT.path}
        files = {slot: spec.path for slot, spec in kept.items() if spec.kind == "file"}
        if len(files) == 2 and len(set(files.values())) == 1:
            files = {"output": service.stderr.path}
        places += [f"its {slot} goes to {path!r}" for slot, path in files.items()]
    return places
