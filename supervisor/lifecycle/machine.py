"""The state machine of a service: one pure function for each event.

A service of a module has functions: `start` comes before its process and `stop` after that has gone, each `stop`
after one `start`; at a restart that somebody orders `restart` takes the place of both.  One without a process is up
from the success of `start`, or of nothing, until it is stopped.

Each takes the service's definition, its life and the time and returns the new life and
what is to be done.  An event that cannot happen in a state raises `ImpossibleEvent`: a
mistake of the caller, never swallowed.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor.definitions.service import Service
from supervisor.lifecycle.backoff import delay
from supervisor.lifecycle.life import WITH_PROCESS, Act, Cause, Life, State, Step, Then, Transition
from supervisor.lifecycle.outlook import UP, goes_down, is_renewed, is_to_tear_down, keeps, runs
from supervisor.lifecycle.span import span

LONGEST_EXTENSION = 600.0  # seconds; a service that lives asks again
FAIL_TIMEOUT = 10.0  # seconds for one that failed to end by itself, where its stop_timeout is none
ORDERS = {
    Cause.START: "start requested",
    Cause.STOP: "stop requested",
    Cause.RESTART: "restart requested",
    Cause.CONFLICT: "conflicts with {}, which was started",
    Cause.DEFINITION: "definition changed",
    Cause.REMOVED: "not defined any more",
    Cause.SIGNAL: "restart signal",
    Cause.NAMESPACE: "its network namespace was made anew",
    Cause.SHUTDOWN: "shutdown",
}


LATE = {
    Step.CHECK: (Cause.CHECK_LATE, "check not finished"),
    Step.SETUP: (Cause.FUNCTION_LATE, "start not finished"),
}
SET_UP = "start succeeded"


class ImpossibleEvent(Exception):
    """An event came in a state in which it cannot."""

    def __init__(self, event: str, life: Life) -> None:
        super().__init__(f"event {event!r} in state {life.state.value!r} ({life.reason})")


def _enter(life: Life, state: State, now: float, reason: str, deadline: float | None = None) -> Life:
    """The life in a new state; what belongs to the old state alone is gone."""
    up_since = life.up_since if state in (*UP, State.STOPPING) else None
    return replace(
        life,
        state=state,
        since=now,
        reason=reason,
        deadline=deadline,
        watchdog_at=None,
        up_since=up_since,
        killed=False,
        came_up=now if life.came_up is None and state in (State.RUNNING, State.DONE) else life.came_up,
        set_up=life.set_up and state in WITH_PROCESS,
    )


def _because(life: Life, cause: Cause, reason: str = "", other: str = "") -> Life:
    """The life with what has just happened to it; an order has its own words."""
    return replace(life, cause=cause, reason=reason or ORDERS[cause].format(other), other=other)


def _after(now: float, seconds: float | None) -> float | None:
    return None if seconds is None else now + seconds


# what the operator wants


def start(service: Service, life: Life, now: float, cause: Cause = Cause.START) -> Transition:
    """Somebody wants it up.  It waits for its dependencies first, also where there are none."""
    match life.state:
        case State.STOPPED | State.FAILED | State.DONE | State.BACKOFF:
            fresh = replace(_because(life, cause), failures=0, restarts=0)
            return _enter(fresh, State.WAITING, now, fresh.reason), ()
        case State.STOPPING:
            again = life if life.then is Then.START else _because(life, cause)
            return replace(again, then=Then.START, failures=0, restarts=0), ()
        case State.WAITING | State.STARTING | State.RUNNING | State.RELOADING:
            return life, ()


def stop(service: Service, life: Life, now: float, cause: Cause = Cause.STOP, other: str = "") -> Transition:
    """Somebody wants it down.  One that has no process, and wants to start, is down at once.

    Unless it keeps something: that is ended by a process of its own, and by no other.
    """
    told = _because(life, cause, other=other)
    match life.state:
        case State.STOPPED | State.FAILED | State.DONE:
            return life, ()
        case State.WAITING if life.set_up:  # its function `restart` was to come
            return _gone(service, _stopping(service, told, now, Then.REST, told.reason), now)
        case State.WAITING | State.BACKOFF if keeps(service, life):
            return _last(_stopping(service, told, now, Then.REST, told.reason))
        case State.WAITING | State.BACKOFF:
            return _enter(told, State.STOPPED, now, told.reason), (Act.RELEASE,)
        case State.STARTING | State.RUNNING | State.RELOADING:
            stopping = _stopping(service, told, now, Then.REST, told.reason)
            return (stopping, (Act.STOP_SIGNAL,)) if runs(service, life) else _gone(service, stopping, now)
        case State.STOPPING if life.then is Then.REST:
            return life, ()
        case State.STOPPING:
            # what was told to hand over must hear that there is no successor
            told_to = life.then is Then.START or life.cause is Cause.NOT_READY
            hands_over = told_to and life.step is not Step.TEARDOWN
            again = hands_over and service.handover_signal is not None
            acts = (Act.STOP_SIGNAL,) if again else ()
            return replace(told, then=Then.REST), acts


def restart(service: Service, life: Life, now: float, cause: Cause = Cause.RESTART) -> Transition:
    """Somebody wants it anew; what is down is started."""
    match life.state:
        case State.STARTING | State.RUNNING | State.RELOADING:
            told = _because(life, cause)
            stopping = _stopping(service, told, now, Then.START, told.reason)
            stopping = replace(stopping, failures=0, restarts=0)
            if runs(service, life):
                return stopping, (Act.HANDOVER_SIGNAL,)
            if service.functions and not (is_renewed(service, stopping) or is_to_tear_down(service, stopping)):
                return stopping, (Act.END_LEFT,)  # no `stop` will, and the next `start` is to find nothing
            return _gone(service, stopping, now)
        case _:
            return start(service, life, now, cause)


def reset(service: Service, life: Life, now: float) -> Transition:
    """Forget failures: `failed` becomes `stopped`, a wait between failures begins anew at its shortest."""
    life = replace(life, failures=0, restarts=0)
    match life.state:
        case State.FAILED:
            told = _because(life, Cause.RESET, "failure forgotten")
            return _enter(told, State.STOPPED, now, told.reason), ()
        case State.BACKOFF if life.deadline is not None:
            return replace(life, deadline=min(life.deadline, now + service.backoff.first)), ()
        case _:
            return life, ()


# what happens to it


def dependencies_met(service: Service, life: Life, now: float) -> Transition:
    if life.state is not State.WAITING:
        raise ImpossibleEvent("dependencies_met", life)
    life = _enter(life, State.STARTING, now, "starting", _after(now, service.start_timeout))
    life = replace(life, then=Then.REST, began=now, came_up=None)
    if service.check:
        return replace(life, step=Step.CHECK), (Act.CHECK,)
    return _set_up(service, life, now)


def executed(service: Service, life: Life, now: float) -> Transition:
    """The new program runs; whether that is enough says `ready`, which may have been heard first."""
    if life.state is State.STOPPING and life.step is Step.LAST:
        return life, (Act.STOP_SIGNAL,)
    if life.state is State.STOPPING or (life.state in UP and service.ready != "exec"):
        return life, ()
    if life.state is not State.STARTING or life.step is not Step.EXEC:
        raise ImpossibleEvent("executed", life)
    if service.ready == "exec":
        return _up(service, life, now), ()
    return replace(life, step=Step.READY), ()


def ready(service: Service, life: Life, now: float) -> Transition:
    """It says that it is ready, after a start or a reload.  Said at another time it means nothing."""
    if life.state is State.STARTING and life.step not in (Step.CHECK, Step.SETUP) and service.ready != "exec":
        return _up(service, life, now), ()
    if life.state is State.RELOADING:
        return replace(_up(service, life, now), up_since=life.up_since), ()
    return life, ()


def reloading(service: Service, life: Life, now: float) -> Transition:
    """It says that it reloads; it will say when it is ready again."""
    if life.state is not State.RUNNING:
        return life, ()
    entered = _enter(life, State.RELOADING, now, "reloading", _after(now, service.start_timeout))
    return replace(entered, watchdog_at=life.watchdog_at), ()


def alive(service: Service, life: Life, now: float) -> Transition:
    """It fed its watchdog."""
    if life.watchdog_at is None or service.watchdog is None:
        return life, ()
    return replace(life, watchdog_at=now + service.watchdog), ()


def extended(service: Service, life: Life, now: float, seconds: float) -> Transition:
    """It asks for more time in its state, counted from now; never for less than it has, nor much at once."""
    if life.deadline is None or life.killed or life.state is State.BACKOFF:
        return life, ()
    return replace(life, deadline=max(life.deadline, now + min(seconds, LONGEST_EXTENSION))), ()


def recovered(service: Service, life: Life, now: float, alive: bool) -> Transition:
    """Another spawnd has been lost and this life is taken over; `alive`: its main process is still there.

    What spawnd alone would have heard is lost: the end of a check, that `exec` worked or it is
    ready, the last words to the watchdog.  Where the process is gone, `exited` follows.
    """
    match life.state:
        case State.STARTING if life.step is Step.CHECK:
            return _waiting(life, now), ()
        case State.STARTING if life.step is Step.SETUP:
            return life, ()
        case State.STARTING if alive and service.ready == "exec":
            return _up(service, life, now), ()
        case State.STARTING if alive:
            return replace(life, step=Step.UNHEARD), ()
        case State.RUNNING | State.RELOADING if alive:
            return replace(life, watchdog_at=_after(now, service.watchdog)), ()
        case _:
            return life, ()


def timed_out(service: Service, life: Life, now: float) -> Transition:
    """`due` has passed."""
    if life.watchdog_at is not None and life.watchdog_at <= now and life.state in UP:
        return watchdog_missed(service, life, now)
    match life.state:
        case State.BACKOFF:
            again = replace(life, restarts=life.restarts + 1)
            return _enter(again, State.WAITING, now, life.reason), ()
        case State.STARTING if life.step is Step.UNHEARD:
            return _up(service, life, now, "running; whether it said that it is ready was not heard"), ()
        case State.STARTING:
            cause, what = LATE.get(life.step, (Cause.NOT_READY, "not ready"))
            late = _because(life, cause, f"{what} after {span(now - life.since)}")
            # it will be tried again: what the process keeps for its successor is not to be ended
            leaves = cause is Cause.NOT_READY and service.handover_signal is not None
            act = Act.HANDOVER_SIGNAL if leaves else Act.STOP_SIGNAL
            return _stopping(service, late, now, Then.FAIL, late.reason), (act,)
        case State.RELOADING:
            back = replace(_up(service, life, now), up_since=life.up_since)
            return replace(back, reason=f"reload not finished after {span(now - life.since)}"), ()
        case State.STOPPING:
            return replace(life, deadline=None, killed=True), (Act.KILL,)
        case _:
            raise ImpossibleEvent("timed_out", life)


def watchdog_missed(service: Service, life: Life, now: float) -> Transition:
    if life.state not in UP:
        return life, ()
    missed = _because(life, Cause.WATCHDOG, "watchdog missed")
    return _stopping(service, missed, now, Then.FAIL, missed.reason), (Act.ABORT,)


def start_failed(service: Service, life: Life, now: float, reason: str, spread: float) -> Transition:
    """No process came of a start, or of the call of a function: something could not be opened, or there was no fork."""
    match life.state:
        case State.STARTING:
            return _over(service, _because(life, Cause.EXIT, reason), now, Then.FAIL, reason, spread)
        case State.STOPPING if life.step is Step.TEARDOWN:
            return _torn_down(service, life, now, False, reason, spread)
        case State.STOPPING if life.step is Step.LAST:
            return _gone(service, life, now, reason, spread)
        case _:
            raise ImpossibleEvent("start_failed", life)


def exited(service: Service, life: Life, now: float, clean: bool, reason: str, spread: float) -> Transition:
    """Its process is gone; `clean` where it ended well, `reason` says how it ended.

    `spread` is the random number in -1..1 for the wait, should there be one.
    """
    ended = _because(life, Cause.EXIT, reason)
    match life.state:
        case State.STARTING if life.step is Step.CHECK and clean:
            return _set_up(service, life, now)
        case State.STARTING if life.step is Step.CHECK:
            failed = _because(life, Cause.CHECK, f"check failed: {reason}")
            return _over(service, failed, now, Then.FAIL, failed.reason, spread)
        case State.STARTING if life.step is Step.SETUP and clean:
            return _launching(service, life, now)
        case State.STARTING if life.step is Step.SETUP:
            return _over(service, _because(life, Cause.FUNCTION, reason), now, Then.FAIL, reason, spread)
        case State.STARTING:
            if service.task and clean:
                return _over(service, ended, now, Then.END, reason, spread)
            early = " before it was ready" if life.step is Step.READY else ""
            return _over(service, ended, now, Then.FAIL, f"{reason}{early}", spread)
        case State.RUNNING | State.RELOADING if service.has_process:
            return _over(service, ended, now, Then.END if clean else Then.FAIL, reason, spread)
        case State.STOPPING if life.step is Step.TEARDOWN:
            return _torn_down(service, life, now, clean, reason, spread)
        case State.STOPPING if life.step is Step.SETUP and clean:  # `start` was faster than the order to stop
            return _gone(service, replace(life, set_up=True), now, reason, spread)
        case State.STOPPING if goes_down(life) and not clean and life.step is not Step.LAST and keeps(service, life):
            return _last(_stopping(service, life, now, Then.REST, life.reason))
        case State.STOPPING:
            return _gone(service, life, now, reason, spread)
        case _:
            raise ImpossibleEvent("exited", life)


# pieces of the above


def _set_up(service: Service, life: Life, now: float) -> Transition:
    """Its function comes first, where it has one."""
    if life.set_up and "restart" in service.functions:
        return replace(life, step=Step.SETUP), (Act.CALL_RESTART,)
    if "start" in service.functions:
        return replace(life, step=Step.SETUP), (Act.CALL_START,)
    return _launching(service, life, now)


def _launching(service: Service, life: Life, now: float) -> Transition:
    life = replace(life, step=Step.EXEC, starts=life.starts + 1, set_up=bool(service.functions))
    if service.has_process:
        return life, (Act.LAUNCH,)
    if service.task:
        return _enter(_because(life, Cause.EXIT, SET_UP), State.DONE, now, SET_UP), (Act.RELEASE,)
    return _up(service, life, now), ()


def _up(service: Service, life: Life, now: float, reason: str = "running") -> Life:
    up = _enter(life, State.RUNNING, now, reason)
    return replace(up, up_since=now, watchdog_at=_after(now, service.watchdog))


def _stopping(service: Service, life: Life, now: float, then: Then, reason: str) -> Life:
    timeout = service.stop_timeout
    if timeout is None and then is Then.FAIL:
        timeout = FAIL_TIMEOUT
    return replace(_enter(life, State.STOPPING, now, reason, _after(now, timeout)), then=then)


def _last(life: Life) -> Transition:
    """Start one more, to be stopped as soon as it runs."""
    return replace(life, step=Step.LAST, starts=life.starts + 1), (Act.LAUNCH,)


def _waiting(life: Life, now: float) -> Life:
    return replace(_enter(life, State.WAITING, now, life.reason), set_up=life.set_up)


def _over(service: Service, life: Life, now: float, then: Then, reason: str, spread: float) -> Transition:
    """It has ended by itself; its function `stop` comes first, where it has one and is set up."""
    if is_to_tear_down(service, life):
        return _gone(service, _stopping(service, life, now, then, reason), now)
    return _ended(service, life, now, then, reason, spread, until=now)


def _gone(service: Service, life: Life, now: float, reason: str = "", spread: float = 0.0) -> Transition:
    """It is stopping and has no process any more: its function `stop` comes, or what was to follow."""
    if is_renewed(service, life) or not is_to_tear_down(service, life):
        return _stopped(service, life, now, reason, spread)
    deadline = _after(now, service.start_timeout)
    return replace(life, step=Step.TEARDOWN, deadline=deadline, killed=False, set_up=False), (Act.CALL_STOP,)


def _torn_down(service: Service, life: Life, now: float, clean: bool, reason: str, spread: float) -> Transition:
    """Its function `stop` has ended.  Whoever ordered a stop is to hear that it failed."""
    if clean:
        return _stopped(service, life, now, "", spread)
    if life.then is Then.REST:
        failed = _because(life, Cause.FUNCTION, f"{life.reason}; {reason}")
        return _enter(failed, State.FAILED, now, failed.reason), (Act.RELEASE,)
    return _stopped(service, life, now, reason, spread)


def _stopped(service: Service, life: Life, now: float, reason: str, spread: float) -> Transition:
    match life.then:
        case Then.REST:
            return _enter(life, State.STOPPED, now, life.reason), (Act.RELEASE,)
        case Then.START:
            again = replace(life, set_up=life.set_up and is_renewed(service, life))
            return _waiting(again, now), ()
        case Then.FAIL | Then.END:
            both = f"{life.reason}; {reason}" if reason else life.reason
            return _ended(service, life, now, life.then, both, spread, until=life.since)


def _ended(
    service: Service, life: Life, now: float, then: Then, reason: str, spread: float, until: float
) -> Transition:
    clean = then is Then.END
    if service.task and clean:
        return _enter(life, State.DONE, now, reason), (Act.RELEASE,)
    if clean and service.restart != "always":
        return _enter(life, State.STOPPED, now, reason), (Act.RELEASE,)
    return _crashed(service, life, now, reason, spread, until)


def _crashed(service: Service, life: Life, now: float, reason: str, spread: float, until: float) -> Transition:
    """Its process ended as it should not have; `until` then it was well, if it ever was."""
    healthy = life.up_since is not None and until - life.up_since >= service.healthy_after
    if healthy and service.restart != "never":
        again = replace(life, failures=0, restarts=life.restarts + 1)
        return _enter(again, State.WAITING, now, reason), ()
    return _failure(service, life, now, reason, spread)


def _failure(service: Service, life: Life, now: float, reason: str, spread: float) -> Transition:
    failures = life.failures + 1
    life = replace(life, failures=failures)
    if service.restart == "never":
        return _enter(life, State.FAILED, now, reason), (Act.RELEASE,)
    if service.start_limit is not None and failures >= service.start_limit:
        times = f"{failures} failures in a row" if failures > 1 else "1 failure"
        return _enter(life, State.FAILED, now, f"{reason}; {times}"), (Act.RELEASE,)
    return _enter(life, State.BACKOFF, now, reason, now + delay(service.backoff, failures, spread)), ()
