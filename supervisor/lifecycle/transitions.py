"""Parts of the state machine shared by several events: entering a state, launching, stopping, ending."""

from __future__ import annotations

from supervisor.definitions.service import Backoff, Service
from supervisor.lifecycle.life import (
    UP,
    WITH_PROCESS,
    Act,
    Cause,
    Life,
    State,
    Step,
    Then,
    Transition,
    has_executed,
    is_renewed,
    is_to_tear_down,
    keeps,
)

DRAIN_LIMIT = 1.0  # seconds for a running process to accept the clients of a socket that is to be replaced
FAIL_TIMEOUT = 10.0  # seconds for a failed service without a stop_timeout to end by itself
LONGEST_FOR_CLIENTS = 1.0  # seconds until an acceptor that could not be started is tried again for the next client
ORDERS = {
    Cause.START: "start requested",
    Cause.STOP: "stop requested",
    Cause.SLEEP: "sleep requested",
    Cause.IDLE: "idle",
    Cause.CLIENT: "a client came",
    Cause.RESTART: "restart requested",
    Cause.CONFLICT: "conflicts with {}, which was started",
    Cause.DEFINITION: "definition changed",
    Cause.REMOVED: "not defined any more",
    Cause.SIGNAL: "restart signal",
    Cause.NAMESPACE: "its network namespace was recreated",
    Cause.SHUTDOWN: "shutdown",
}
SET_UP = "start succeeded"
ASLEEP = "asleep until a client comes"
_KEEPS_UP_SINCE = UP | {State.STOPPING}


def enter(life: Life, state: State, now: float, reason: str, deadline: float | None = None) -> Life:
    """Return the life in a new state, without everything that belongs to the old state alone."""
    up_since = life.up_since if state in _KEEPS_UP_SINCE else None
    return life._replace(
        state=state,
        since=now,
        reason=reason,
        deadline=deadline,
        watchdog_at=None,
        up_since=up_since,
        killed=False,
        came_up=now if life.came_up is None and state is State.DONE else life.came_up,
        set_up=life.set_up and state in WITH_PROCESS,
        kept=(life.kept or has_executed(life)) and state not in (State.STOPPED, State.DONE),
        keeps_sessions=life.keeps_sessions if state in (State.STOPPING, State.STOPPED) else None,
    )


def because(life: Life, cause: Cause, reason: str = "", other: str = "", detail: str = "") -> Life:
    """Return the life with a new cause; orders have their own reasons."""
    words = reason or ORDERS[cause].format(other)
    return life._replace(cause=cause, reason=words, other=other, detail=detail, stop_failure="")


def asked_from_rest(life: Life, now: float) -> Life:
    """Return the life of a service that is started from rest: its dependents wait for this start."""
    return life._replace(asked=now, began=None, came_up=None)


def after(now: float, seconds: float | None) -> float | None:
    return None if seconds is None else now + seconds


def call_setup(service: Service, life: Life, now: float) -> Transition:
    """Call the function that precedes the process, if the service has one."""
    if life.set_up and "restart" in service.functions:
        return life._replace(step=Step.SETUP), (Act.CALL_RESTART,)
    if "start" in service.functions:
        return life._replace(step=Step.SETUP), (Act.CALL_START,)
    return launch(service, life, now)


def launch(service: Service, life: Life, now: float) -> Transition:
    life = life._replace(step=Step.EXEC, starts=life.starts + 1, set_up=bool(service.functions))
    if service.has_process:
        return life, (Act.LAUNCH,)
    if service.task:
        return enter(because(life, Cause.EXIT, SET_UP), State.DONE, now, SET_UP), (Act.RELEASE,)
    return come_up(service, life, now), ()


def come_up(service: Service, life: Life, now: float, reason: str = "running") -> Life:
    up = enter(life, State.RUNNING, now, reason)
    came_up = now if up.came_up is None and not service.task else up.came_up  # a task comes up when it is done
    return up._replace(up_since=now, watchdog_at=after(now, service.watchdog), came_up=came_up)


def begin_stop(service: Service, life: Life, now: float, then: Then, reason: str) -> Life:
    timeout = service.stop_timeout
    if timeout is None and then is Then.FAIL:
        timeout = FAIL_TIMEOUT
    return enter(life, State.STOPPING, now, reason, after(now, timeout))._replace(then=then)


def begin_drain(stopping: Life, now: float) -> Transition:
    return stopping._replace(step=Step.DRAIN, deadline=now + DRAIN_LIMIT), (Act.DRAIN,)


def signalled(service: Service, life: Life, now: float) -> Life:
    """Return the life after the stop signal: the time to stop begins now."""
    return life._replace(step=Step.EXEC, deadline=after(now, service.stop_timeout))


def launch_last(service: Service, life: Life, now: float) -> Transition:
    """Start one more process, to be stopped once it is ready; the stop has a limit even if a start has none."""
    limit = service.stop_timeout if service.start_timeout is None else service.start_timeout
    return life._replace(step=Step.LAST, starts=life.starts + 1, deadline=after(now, limit)), (Act.LAUNCH,)


def is_last(life: Life) -> bool:
    """Return whether the process was started only to be stopped, and has no stop signal yet."""
    return life.state is State.STOPPING and life.step is Step.LAST


def tell_last(service: Service, life: Life, now: float) -> Transition:
    """Stop that process, which is ready: an earlier signal would end it before it could handle the signal."""
    told = life._replace(step=Step.TOLD, deadline=after(now, service.stop_timeout), kept=False)
    return told, (Act.STOP_SIGNAL,)


def keeps_on(life: Life, now: float, reason: str) -> Transition:
    """Fail a stop: that process never had the chance to end what is kept. Another stop tries it again."""
    failed = because(life, Cause.KEPT, f"{life.reason}; what it keeps was not ended: {reason}")
    return enter(failed, State.FAILED, now, failed.reason)._replace(step=Step.EXEC, kept=True), (Act.RELEASE,)


def give_up(service: Service, life: Life, now: float, reason: str) -> Transition:
    """Fail a service for good; what it keeps stays until a stop."""
    failed = enter(life, State.FAILED, now, reason)
    outlived = True if service.accept is not None else None
    return failed._replace(kept=keeps(service, failed), keeps_sessions=outlived), (Act.RELEASE,)


def wait_again(life: Life, now: float) -> Life:
    return enter(life, State.WAITING, now, life.reason)._replace(set_up=life.set_up)


def wait_by_itself(service: Service, life: Life, now: float, reason: str, clean: bool = False) -> Life:
    """Return the life of a service that goes on without an order: one on demand waits for its next client.

    An acceptor that has crashed starts again, as there may be sessions to be watched.
    """
    sleeps = service.demand and (clean or service.accept is None or life.then is Then.SLEEP)
    return enter(life, State.WAITING, now, reason)._replace(then=Then.SLEEP if sleeps else Then.START)


def fall_asleep(life: Life, now: float) -> Transition:
    """Go to sleep, with the sockets open. Nothing is up any more, so dependents do not wait for a process."""
    return enter(life, State.ASLEEP, now, ASLEEP)._replace(then=Then.SLEEP), (Act.SLEEP,)


def end_by_itself(service: Service, life: Life, now: float, then: Then, reason: str, spread: float) -> Transition:
    """End a service that has ended by itself; its function `stop` comes first, if it has one and is set up."""
    if is_to_tear_down(service, life):
        return process_gone(service, begin_stop(service, life, now, then, reason), now)
    return _ended(service, life, now, then, reason, spread, until=now)


def process_gone(service: Service, life: Life, now: float, reason: str = "", spread: float = 0.0) -> Transition:
    """Go on with a stop after the end of the process: with the function `stop`, or with the next state."""
    if is_renewed(service, life) or not is_to_tear_down(service, life):
        return _stopped(service, life, now, reason, spread)
    return _tear_down(service, life, now)


def tear_down_again(service: Service, life: Life, now: float) -> Transition:
    """Call the function `stop` after all, then go on: with the next start, unless the service has ended for good."""
    again = life.then is Then.FAIL or (service.restart == "always" and not service.task and not service.demand)
    then = life.then
    if then in (Then.FAIL, Then.END) and again and not life.final:
        then = Then.SLEEP if service.demand else Then.START
    stopping = begin_stop(service, life, now, then, life.reason)
    if "stop" not in service.functions:  # of another definition by now
        return _stopped(service, stopping._replace(set_up=False), now, "", 0.0)
    return _tear_down(service, stopping, now)


def _tear_down(service: Service, life: Life, now: float) -> Transition:
    deadline = after(now, service.start_timeout)
    return life._replace(step=Step.TEARDOWN, deadline=deadline, killed=False, set_up=False), (Act.CALL_STOP,)


def not_torn_down(service: Service, life: Life, now: float, reason: str, spread: float) -> Transition:
    """Fail, as the function `stop` could not be called. It stays due: no `start` comes before it.

    If an operator ordered the stop, the next stop tries it again, else the service itself after a delay.
    """
    both = life.reason if life.reason.endswith(reason) else f"{life.reason}; {reason}"
    if life.then is Then.REST:
        failed, acts = give_up(service, because(life, Cause.FUNCTION, both), now, both)
    else:
        ended = life.then in (Then.FAIL, Then.END) or life.stop_failure  # by itself, which explains more
        told = life._replace(stop_failure=reason) if ended else because(life, Cause.FUNCTION, both)
        failed, acts = fail(service, told, now, both, spread)
    return failed._replace(set_up=True), acts


def torn_down(service: Service, life: Life, now: float, clean: bool, reason: str, spread: float) -> Transition:
    """Go on after the function `stop`. If an operator ordered the stop, a failure of the function is reported."""
    if clean:
        return _stopped(service, life._replace(stop_failure=""), now, "", spread)
    if life.then is Then.REST:
        failed = because(life, Cause.FUNCTION, f"{life.reason}; {reason}")
        return give_up(service, failed, now, failed.reason)
    return _stopped(service, life._replace(stop_failure=reason), now, reason, spread)


def _stopped(service: Service, life: Life, now: float, reason: str, spread: float) -> Transition:
    match life.then:
        case Then.REST:
            return enter(life, State.STOPPED, now, life.reason), (Act.RELEASE,)
        case Then.START | Then.SLEEP:
            again = life._replace(set_up=life.set_up and is_renewed(service, life))
            return wait_again(again, now), ()
        case Then.FAIL | Then.END:
            both = f"{life.reason}; {reason}" if reason else life.reason
            return _ended(service, life, now, life.then, both, spread, until=life.since)


def _ended(
    service: Service, life: Life, now: float, then: Then, reason: str, spread: float, until: float
) -> Transition:
    clean = then is Then.END
    if service.task and clean:
        return enter(life, State.DONE, now, reason), (Act.RELEASE,)
    if life.final:
        listed = f"{reason}; no_restart_status lists it"
        if not clean:
            return give_up(service, life, now, listed)
        return enter(life, State.STOPPED, now, listed), (Act.RELEASE,)
    if clean and service.demand:
        # failures are forgotten once it has served its client
        return wait_by_itself(service, life, now, reason, clean), ()
    if clean and service.restart != "always":
        return enter(life, State.STOPPED, now, reason), (Act.RELEASE,)
    return _crashed(service, life, now, reason, spread, until)


def _crashed(service: Service, life: Life, now: float, reason: str, spread: float, until: float) -> Transition:
    """Handle an end that should not have happened; `until` is the time up to which the service was well, if ever."""
    healthy = life.up_since is not None and until - life.up_since >= service.healthy_after
    if healthy and service.restart != "never":
        again = life._replace(failures=0, restarts=life.restarts + 1)
        return wait_by_itself(service, again, now, reason), ()
    return fail(service, life, now, reason, spread)


def fail(service: Service, life: Life, now: float, reason: str, spread: float) -> Transition:
    """Count a failure: the service is tried again after a delay, unless its definition wants no more tries.

    An acceptor that has not run is tried again soon, but for a client only; without its sockets there is none.
    """
    failures = life.failures + 1
    life = life._replace(failures=failures)
    if service.restart == "never":
        return give_up(service, life, now, reason)
    if service.start_limit is not None and failures >= service.start_limit:
        times = f"{failures} failures in a row" if failures > 1 else "1 failure"
        return give_up(service, life, now, f"{reason}; {times}")
    wait = delay(service.backoff, failures, spread)
    if service.accept is None or life.up_since is not None:
        return enter(life, State.BACKOFF, now, reason, now + wait), ()
    if life.state is not State.ASLEEP and life.cause is Cause.EXIT:
        wait = min(wait, LONGEST_FOR_CLIENTS)
    return enter(life, State.BACKOFF, now, reason, now + wait)._replace(then=Then.SLEEP), ()


def delay(backoff: Backoff, failures: int, spread: float) -> float:
    """Return the seconds to wait after the given number of failures in a row (1 or more).

    `spread` is a random number in -1..1; the wait moves by that share of `jitter`, so that services that
    failed together do not restart together.
    """
    if failures < 1:
        raise ValueError(f"no wait without a failure: {failures}")
    try:
        wait = min(backoff.first * float(backoff.factor) ** (failures - 1), backoff.max)
    except OverflowError:
        wait = backoff.max
    return float(wait * (1 + backoff.jitter * spread))
