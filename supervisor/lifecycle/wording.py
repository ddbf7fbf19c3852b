"""Sentences for people about the reason for a service's state, which `cause` has found. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from supervisor.definitions.service import Service
from supervisor.lifecycle.cause import Kind, Link, Subject, end_of, failure, last_restart
from supervisor.lifecycle.life import Cause, Ended, Idleness, Life, State, Step, Then, lies_down, span
from supervisor.printable import quoted

STATES = {
    State.STOPPED: "is not running",
    State.ASLEEP: "is asleep",
    State.WAITING: "is not running",
    State.STARTING: "is starting",
    State.RUNNING: "is running",
    State.RELOADING: "is reloading",
    State.STOPPING: "is stopping",
    State.BACKOFF: "is not running",
    State.FAILED: "has failed",
    State.DONE: "is done",
}
OPEN = (State.RUNNING, State.RELOADING, State.ASLEEP)  # in which clients are expected
MEBIBYTE = 1 << 20
NOT_GONE = "its processes were killed and are not gone yet"
LONGEST_PATH = 3  # services that the sentence names; the chain has them all


def answer(links: Sequence[Link], now: float, since: str) -> str:
    """Return one sentence. `since` is the time at which the root entered its state."""
    first, root = links[0], links[-1]
    text = describe(root, now)
    if first is root and root.kind is Kind.RUNNING:
        return f"{root.name} has been running since {since}{text and f'; {text}'}"
    path = f"{first.name} {_state(first)}: it {_path(links)}, which" if first is not root else root.name
    return f"{path} {_state(root)}{text and f': {text}'}"


def _path(links: Sequence[Link]) -> str:
    """Return the path to the root: `needs app, which needs db`."""
    steps = [_hold(link) for link in links[:-1]]
    if len(steps) >= LONGEST_PATH:
        return f"{steps[0]}, which waits for {links[-1].name} in the end"
    return ", which ".join(steps)


def _state(link: Link) -> str:
    if link.subject is None:
        return "is not defined"
    life = link.subject.life
    if life.state is State.STOPPING and life.then is Then.START:
        return "is being restarted"
    return STATES[life.state]


def describe(link: Link, now: float) -> str:
    """Return the reason for the state of a service, without its name."""
    subject = link.subject
    if subject is None:
        return ""
    if subject.life.state is State.WAITING and link.other:
        return f"it {_hold(link)}"
    of_stop = f"; {subject.life.stop_failure}" if subject.life.stop_failure else ""
    text = f"{WORDS[link.kind](link, subject)}{of_stop}{_outlook(subject, now)}".removeprefix("; ")
    return "; ".join(filter(None, (text, subject.stale if subject.life.state in OPEN else "")))


def _hold(link: Link) -> str:
    match link.kind:
        case Kind.DEPENDENCY:
            return f"needs {link.other}"
        case Kind.ORDER:
            return f"comes after {link.other}"
        case Kind.CONFLICT:
            return f"conflicts with {link.other}"
        case _:
            return f"needs an address that {link.other} is about to give up"


def _outlook(subject: Subject, now: float) -> str:
    """Return what happens next."""
    service, life = subject.service, subject.life
    limit = "" if service.start_limit is None else f" of {service.start_limit}"
    match life.state:
        case State.RUNNING if words := idleness(service, subject.idle, now):
            return f"; {words}"
        case State.BACKOFF:
            return f"; failure {life.failures}{limit}, next start in {_left(life, now)}"
        case State.FAILED if life.final:
            return "; it is not started again: no_restart_status lists that status"
        case State.FAILED if life.cause is Cause.KEPT:
            return ", so what it keeps was not ended"
        case State.FAILED if life.set_up:
            return ", so what its function start has made is still there"
        case State.FAILED if not life.failures:  # its function `stop` failed
            return ""
        case State.FAILED if service.restart == "never":
            return '; it is not started again: restart = "never"'
        case State.FAILED:
            return f"; given up after {life.failures} failure{'s in a row' if life.failures > 1 else ''}"
        case State.STOPPING if life.killed:
            return f"; {NOT_GONE}"
        case State.STOPPING if life.step is Step.DRAIN:
            return f"; its process takes the clients that wait on its old sockets first{_time_left(life, now)}"
        case State.STOPPING if life.step is Step.TEARDOWN:
            return f"; its function stop runs{_time_left(life, now)}"
        case State.STOPPING if life.step is Step.LAST:
            return f"; it was started once more to end what it has kept{_time_left(life, now)}"
        case State.STOPPING if life.deadline is not None:
            return f"; its process has {_left(life, now)} left to end"
        case State.STOPPING:
            return "; its process has unlimited time to end"
        case State.STARTING if life.deadline is not None:
            return f"; it has {_left(life, now)} left"
        case _:
            return ""


def idleness(service: Service, idle: Idleness | None, now: float) -> str:
    """Return what keeps a service with `idle_stop` awake, or since when nobody has used it; '' if that is unknown."""
    if idle is None or (not idle.busy and idle.since is None):
        return ""
    if idle.busy or idle.since is None:
        return f"busy: {idle.busy}"
    passed = max(0.0, now - idle.since)
    return f"idle for {span(passed)}, asleep in {span(max(0.0, (service.idle_stop or 0.0) - passed))} at the earliest"


def _time_left(life: Life, now: float) -> str:
    return f", and has {_left(life, now)} left" if life.deadline is not None else ""


def _left(life: Life, now: float) -> str:
    return span(max(0.0, (life.deadline or now) - now))


# a function for each kind of reason


def _running(link: Link, subject: Subject) -> str:
    kind = last_restart(subject)
    if kind is None:
        return ""
    times = f" {subject.life.restarts} times, the last time" if subject.life.restarts > 1 else ""
    return f"restarted{times} because {WORDS[kind](link, subject)}"


def _starting(link: Link, subject: Subject) -> str:
    service, life = subject.service, subject.life
    if life.state is State.WAITING:
        return "its sockets are about to be opened" if lies_down(life) else "it is about to be started"
    match life.step:
        case Step.CHECK:
            return f"its check command runs ({service.check[0] if service.check else 'none'})"
        case Step.SETUP:
            return f"its function {'restart' if life.set_up else 'start'} runs"
        case Step.EXEC:
            return "it is being set up"
        case _:
            if subject.undecided:
                return subject.undecided
            if subject.service.forking:
                return "it has not gone into the background yet, or has left no process that its definition tells"
            return f'it has not said yet that it is ready (ready = "{service.ready}")'


def _asleep(link: Link, subject: Subject) -> str:
    if subject.life.state is State.STOPPING and subject.life.cause is Cause.IDLE:
        return f"nobody has used it for {span(subject.service.idle_stop or 0.0)}"
    if subject.life.state is State.STOPPING:
        return "an order puts it to sleep"
    specs = [spec for spec in (subject.service.stdin, *subject.service.fd) if spec.may_wake]
    places = [spec for spec in specs if spec.kind != "file"] or specs
    last = f"; the last time, {WORDS[failure(subject)](link, subject)}" if subject.life.failures else ""
    return f"it starts with the first client of {' or '.join(spec.describe() for spec in places)}{last}"


def _not_started(link: Link, subject: Subject) -> str:
    if subject.service.autostart:
        return "it has not been started yet"
    return 'its definition has status = "stop", and it has not been started'


def _definition(link: Link, subject: Subject) -> str:
    if subject.life.detail:
        return subject.life.detail
    return "its definition has changed" if subject.service.autostart else 'its definition has status = "stop" now'


def _conflict(link: Link, subject: Subject) -> str:
    return f"it conflicts with {link.other}, which was started"


def _exit(link: Link, subject: Subject) -> str:
    ended = subject.ended
    is_of_start = ended is not None and (ended.step or ended.has_left_nothing)
    return f"{'it' if is_of_start else 'its process'} {_how(ended)}"


def _how(ended: Ended | None) -> str:
    if ended is not None and ended.step:
        where = f" {ended.path!r}" if ended.path else ""
        return f"could not {ended.step}{where}: {ended.cause}"
    if ended is not None and ended.function and ended.cause:
        return f"failed: {ended.cause}"
    if ended is not None and ended.signum is not None:
        return f"was killed by {ended.signal}{' (core dumped)' if ended.core else ''}{left_behind(ended.left)}"
    if ended is not None and ended.status is not None:
        return f"exited with status {ended.status}{left_behind(ended.left)}"
    return ended.cause if ended is not None and ended.has_left_nothing else "ended in an unknown way"


def left_behind(count: int) -> str:
    """Return the number of leftover processes, as a continuation of a sentence about the main process."""
    return f" and left {count} process{'es' if count > 1 else ''} behind" if count else ""


def _out_of_memory(link: Link, subject: Subject) -> str:
    limit = subject.service.resources.get("memory_max", "max")
    own = f" (memory_max is {int(limit) / MEBIBYTE:.3g} MiB)" if limit != "max" else ""
    return f"it ran out of memory{own}: {_exit(link, subject)}"


def _ended(link: Link, subject: Subject) -> str:
    return f'{_exit(link, subject)}, and restart = "{subject.service.restart}"'


def _check(link: Link, subject: Subject) -> str:
    if subject.life.cause == Cause.CHECK_LATE:
        return f"its check was not finished in time{_limit('start_timeout', subject.service.start_timeout)}"
    return f"its check {_how(subject.ended)}"


def _function(link: Link, subject: Subject) -> str:
    ended = end_of(subject)
    name = ended.function if ended is not None and ended.function else "start"
    return f"its function {name} {_how(ended)}"


def _function_late(link: Link, subject: Subject) -> str:
    return f"its function start was not finished in time{_limit('start_timeout', subject.service.start_timeout)}"


def _not_ready(link: Link, subject: Subject) -> str:
    undecided = subject.ended.undecided if subject.ended is not None else ""
    more = f"; {undecided}" if undecided else ""
    return f"it was not ready in time{_limit('start_timeout', subject.service.start_timeout)}{more}"


def several(count: int) -> str:
    """Return a sentence about several processes in the background, one of which is the service."""
    return f"{count} processes are in the background: pid_file would say which one is to be supervised"


def misled(path: str, pid: int, name: str) -> str:
    """Return a sentence about a pid file that names a foreign process; `name` is its name, '' if it does not exist."""
    what = f"{quoted(name)}, which is not of the service" if name else "which does not exist"
    return f"its pid_file {quoted(path)} names process {pid}, {what}"


def unread(path: str, cause: str) -> str:
    """Return a sentence about a pid file without a process id."""
    return f"its pid_file {quoted(path)} names no process: {cause}"


def _watchdog(link: Link, subject: Subject) -> str:
    return f"it missed its watchdog{_limit('watchdog', subject.service.watchdog)}"


def _limit(key: str, seconds: float | None) -> str:
    """Return the value in the definition, which may have changed since the limit was set."""
    return f" ({key} is {seconds:g} s)" if seconds is not None else ""


def _always(text: str) -> Callable[[Link, Subject], str]:
    return lambda link, subject: text


WORDS: dict[Kind, Callable[[Link, Subject], str]] = {
    Kind.RUNNING: _running,
    Kind.DONE: _always("it is a task, and has ended well"),
    Kind.STARTING: _starting,
    Kind.ASLEEP: _asleep,
    Kind.CLIENT: _always("a client came"),
    Kind.UNSERVED: _always("it ended without having served the client that it was started for"),
    Kind.CONFLICT: _conflict,
    Kind.ADDRESS: _exit,
    Kind.NOT_STARTED: _not_started,
    Kind.STOPPED: _always("an order stopped it"),
    Kind.RESTART: _always("it was requested"),
    Kind.RESTART_SIGNAL: _always("the supervisor got its restart_signal"),
    Kind.NAMESPACE: _always("the network namespace of it or of one of its sockets was recreated"),
    Kind.RESET: _always("it had failed, and that was reset"),
    Kind.DEFINITION: _definition,
    Kind.REMOVED: _always("it is not defined any more"),
    Kind.SHUTDOWN: _always("the supervisor is about to end"),
    Kind.ENDED: _ended,
    Kind.EXIT: _exit,
    Kind.SIGNAL: _exit,
    Kind.OUT_OF_MEMORY: _out_of_memory,
    Kind.SETUP: _exit,
    Kind.CHECK: _check,
    Kind.FUNCTION: _function,
    Kind.FUNCTION_LATE: _function_late,
    Kind.NOT_READY: _not_ready,
    Kind.WATCHDOG: _watchdog,
}
