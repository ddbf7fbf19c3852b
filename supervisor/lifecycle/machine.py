"""The state machine of a service: one pure function for each event.

Each function takes the service's definition, its life and the time, and returns the new life and the acts to carry
out. An event that cannot happen in a state raises `ImpossibleEvent`: a defect of the caller, never swallowed.

A service of a module has functions. `start` comes before its process and `stop` after its end, and each
`start` has one `stop`. At an ordered restart, `restart` replaces both. A service without a process is up from
the success of `start`, or at once, until it is stopped.
"""

from __future__ import annotations

from supervisor.definitions.service import Service
from supervisor.lifecycle.life import (
    AT_REST,
    RUNS,
    UP,
    Act,
    Cause,
    Life,
    State,
    Step,
    Then,
    Transition,
    goes_down,
    goes_into_background,
    has_kept,
    is_down,
    is_renewed,
    is_to_tear_down,
    keeps,
    runs,
    span,
)
from supervisor.lifecycle.transitions import (
    after,
    asked_from_rest,
    because,
    begin_drain,
    begin_stop,
    call_setup,
    come_up,
    end_by_itself,
    enter,
    fail,
    fall_asleep,
    is_last,
    keeps_on,
    launch,
    launch_last,
    not_torn_down,
    process_gone,
    signalled,
    tear_down_again,
    tell_last,
    torn_down,
    wait_again,
    wait_by_itself,
)  # fmt: skip

LONGEST_EXTENSION = 600.0  # seconds; a living service can ask again
LATE = {
    Step.CHECK: (Cause.CHECK_LATE, "check not finished"),
    Step.SETUP: (Cause.FUNCTION_LATE, "start not finished"),
}
class ImpossibleEvent(Exception):
    """An event arrived in a state in which it cannot happen."""

    def __init__(self, event: str, life: Life) -> None:
        super().__init__(f"event {event!r} in state {life.state.value!r} ({life.reason})")


# orders


def start(service: Service, life: Life, now: float, cause: Cause = Cause.START) -> Transition:
    """Bring the service up for an operator or a dependent. It waits for its dependencies first, if there are any."""
    match life.state:
        case State.STOPPED | State.FAILED | State.DONE | State.BACKOFF:
            life = life if life.state is State.BACKOFF else asked_from_rest(life, now)
            fresh = because(life, cause)._replace(failures=0, restarts=0)
            if life.set_up:
                return process_gone(service, begin_stop(service, fresh, now, Then.START, fresh.reason), now)
            return enter(fresh, State.WAITING, now, fresh.reason)._replace(then=Then.START), ()
        case State.ASLEEP | State.WAITING if life.then is Then.SLEEP:
            told = because(asked_from_rest(life, now), cause)
            if cause is not Cause.CLIENT:
                told = told._replace(failures=0, restarts=0)
            return enter(told, State.WAITING, now, told.reason)._replace(then=Then.START), ()
        case State.STOPPING:
            life = asked_from_rest(life, now) if life.then in (Then.REST, Then.SLEEP) else life
            again = life if life.then is Then.START else because(life, cause)
            return again._replace(then=Then.START, failures=0, restarts=0), ()
        case _:
            return life, ()


def sleep(service: Service, life: Life, now: float, cause: Cause = Cause.SLEEP) -> Transition:
    """End the process, if there is one, but open the sockets or keep them open: a client starts the service.

    Things that the process keeps beyond its own life stay, as for a successor.
    """
    told = because(life, cause)._replace(failures=0, restarts=0)
    match life.state:
        case State.STOPPED | State.FAILED | State.BACKOFF | State.WAITING if life.set_up:
            return process_gone(service, begin_stop(service, told, now, Then.SLEEP, told.reason), now)
        case State.STOPPED | State.FAILED | State.DONE | State.BACKOFF:
            return enter(told, State.WAITING, now, told.reason)._replace(then=Then.SLEEP), ()
        case State.WAITING if life.then is not Then.SLEEP:
            return told._replace(then=Then.SLEEP), ()
        case State.STARTING | State.RUNNING | State.RELOADING:
            stopping = begin_stop(service, told, now, Then.SLEEP, told.reason)
            if runs(service, life):
                return stopping, (Act.HANDOVER_SIGNAL,)
            return process_gone(service, stopping, now)
        case State.STOPPING if life.then is not Then.SLEEP:
            return told._replace(then=Then.SLEEP), ()
        case _:
            return life, ()


def idle(service: Service, life: Life, now: float) -> Transition:
    """Put a service to sleep that nobody has used for `idle_stop`."""
    if life.state is not State.RUNNING or service.idle_stop is None:
        return life, ()
    asleep, acts = sleep(service, life, now, Cause.IDLE)
    return asleep._replace(reason=f"idle for {span(service.idle_stop)}"), acts


def served(service: Service, life: Life, now: float) -> Transition:
    """Forget failures: the last run ended with success, and the client that had woken the service waits no more."""
    return (life._replace(failures=0), ()) if life.state is State.ASLEEP else (life, ())


def unserved(service: Service, life: Life, now: float, reason: str, spread: float) -> Transition:
    """Count the last run as a failure: the client that had woken the service still waits."""
    if life.state is not State.ASLEEP:
        return life, ()
    return fail(service, because(life, Cause.UNSERVED, reason), now, reason, spread)


def stop(
    service: Service,
    life: Life,
    now: float,
    cause: Cause = Cause.STOP,
    other: str = "",
    keeps_sessions: bool = False,
) -> Transition:
    """Bring the service down for an operator. A service that has no process yet is down at once.

    With `keeps_sessions`, sessions live on without the service, until another stop.

    One exception is a service that keeps things beyond its process: another process is started, which alone
    can end them. The other one is a module whose function `stop` is still due. If the process cannot be started,
    or the function cannot be called, the stop fails, and the next one tries it again.
    """
    outlived = True if keeps_sessions and service.accept is not None else None
    told = because(life, cause, other=other)._replace(keeps_sessions=outlived)
    match life.state:
        case State.STARTING | State.RUNNING | State.RELOADING:
            stopping = begin_stop(service, told, now, Then.REST, told.reason)
            return (stopping, (Act.STOP_SIGNAL,)) if runs(service, life) else process_gone(service, stopping, now)
        case State.STOPPING if life.then is Then.REST:
            return life._replace(keeps_sessions=outlived), ()
        case State.STOPPING if life.step is Step.DRAIN:
            return signalled(service, told._replace(then=Then.REST), now), (Act.STOP_SIGNAL,)
        case State.STOPPING:
            # a process that was told to hand over has to learn that there is no successor
            told_to = life.then in (Then.START, Then.SLEEP) or life.cause is Cause.NOT_READY
            hands_over = told_to and life.step not in (Step.TEARDOWN, Step.LAST, Step.TOLD)
            again = hands_over and service.handover_signal is not None
            acts = (Act.STOP_SIGNAL,) if again else ()
            return told._replace(then=Then.REST), acts
        case _:
            return (life, ()) if is_down(life) else _stop_without_process(service, life, told, now)


def _stop_without_process(service: Service, life: Life, told: Life, now: float) -> Transition:
    stopping = begin_stop(service, told, now, Then.REST, told.reason)
    match life.state:
        # its function `restart` would have come next, or `stop` could not be called before
        case State.WAITING | State.BACKOFF | State.FAILED | State.STOPPED if life.set_up:
            return process_gone(service, stopping, now)
        case State.WAITING | State.BACKOFF | State.FAILED | State.STOPPED | State.ASLEEP if keeps(service, life):
            return launch_last(service, stopping, now)
        case _ if service.accept is not None and not told.keeps_sessions:  # there may be sessions
            return stopping._replace(step=Step.EXEC), (Act.END_LEFT,)
        case _:
            return enter(told, State.STOPPED, now, told.reason), (Act.RELEASE,)


def restart(
    service: Service,
    life: Life,
    now: float,
    cause: Cause = Cause.RESTART,
    detail: str = "",
    drains: bool = False,
    ends_sessions: bool = False,
) -> Transition:
    """Restart the service for an operator, or start it. `detail` is kept if it is up.

    `drains`: clients are queued on a socket that may be gone from its path; a process that is up accepts them first.
    A service that is asleep, or lies down, has no process to be restarted: its next one is new anyway.
    `ends_sessions`: sessions end as at a stop, also those that an acceptor has left which is no longer there.
    """
    ends_sessions = ends_sessions and service.accept is not None
    if ends_sessions and life.state not in RUNS:
        return _end_sessions(service, life, now, cause)
    match life.state:
        case State.ASLEEP | State.WAITING | State.STOPPING if life.then is Then.SLEEP:
            return life, ()
        case State.STARTING | State.RUNNING | State.RELOADING:
            told = because(life, cause, detail=detail)
            stopping = begin_stop(service, told, now, Then.START, told.reason)
            stopping = stopping._replace(failures=0, restarts=0, keeps_sessions=False if ends_sessions else None)
            if runs(service, life):
                is_up = life.state is not State.STARTING
                return begin_drain(stopping, now) if drains and is_up else (stopping, (Act.HANDOVER_SIGNAL,))
            if service.functions and not (is_renewed(service, stopping) or is_to_tear_down(service, stopping)):
                return stopping, (Act.END_LEFT,)  # no `stop` will clean up, and the next `start` must find nothing
            return process_gone(service, stopping, now)
        case _:
            return start(service, life, now, cause)


def _end_sessions(service: Service, life: Life, now: float, cause: Cause) -> Transition:
    """Restart a service whose acceptor is not there, or is ending: its sessions end before the next one starts."""
    if life.state is State.STOPPING:
        again, acts = (life, ()) if life.then is Then.SLEEP else start(service, life, now, cause)
        return again._replace(keeps_sessions=False), acts
    told = because(asked_from_rest(life, now) if life.state in AT_REST else life, cause)
    told = told._replace(failures=0, restarts=0, keeps_sessions=False)
    then = Then.SLEEP if service.demand else Then.START
    return begin_stop(service, told, now, then, told.reason)._replace(step=Step.EXEC), (Act.END_LEFT,)


def reset(service: Service, life: Life, now: float) -> Transition:
    """Forget failures: `failed` becomes `stopped`, and a back-off is cut to the first delay.

    Things that the service keeps are not forgotten: the next stop ends them.
    """
    life = life._replace(failures=0, restarts=0)
    match life.state:
        case State.FAILED:
            told = because(life, Cause.RESET, "failure forgotten")
            stopped = enter(told, State.STOPPED, now, told.reason)
            return stopped._replace(kept=has_kept(life), set_up=life.set_up), ()
        case State.BACKOFF if life.deadline is not None:
            return life._replace(deadline=min(life.deadline, now + service.backoff.first)), ()
        case _:
            return life, ()


# events


def dependencies_met(service: Service, life: Life, now: float) -> Transition:
    if life.state is not State.WAITING:
        raise ImpossibleEvent("dependencies_met", life)
    if life.then is Then.SLEEP:
        return fall_asleep(life, now)
    life = enter(life, State.STARTING, now, "starting", after(now, service.start_timeout))
    began = now if life.began is None else life.began
    life = life._replace(then=Then.REST, began=began, final=False)
    if service.check:
        return life._replace(step=Step.CHECK), (Act.CHECK,)
    return call_setup(service, life, now)


def executed(service: Service, life: Life, now: float) -> Transition:
    """Note that the new program runs. Depending on `ready`, that is enough; readiness may also have come first."""
    if is_last(life):
        return tell_last(service, life, now) if service.ready == "exec" else (life, ())
    if life.state is State.STOPPING:
        return life._replace(kept=life.kept or life.step is Step.EXEC), ()
    if life.state in UP and service.ready != "exec":
        return life, ()
    if life.state is not State.STARTING or life.step is not Step.EXEC:
        raise ImpossibleEvent("executed", life)
    if service.ready == "exec" and not service.forking:
        return come_up(service, life, now), ()
    return life._replace(step=Step.READY), ()


def in_background(service: Service, life: Life, now: float) -> Transition:
    """Note that the daemon was found, after the executed process went into the background."""
    if life.state is State.STOPPING:  # the order to stop came before it was found
        return life, (Act.STOP_SIGNAL,)
    return (come_up(service, life, now) if goes_into_background(service, life) else life), ()


def ready(service: Service, life: Life, now: float) -> Transition:
    """Note that the service is ready, after a start or a reload. At another time this has no effect."""
    if is_last(life) and service.ready != "exec":
        return tell_last(service, life, now)
    if life.state is State.STARTING and life.step not in (Step.CHECK, Step.SETUP) and service.ready != "exec":
        return come_up(service, life, now), ()
    if life.state is State.RELOADING:
        return come_up(service, life, now)._replace(up_since=life.up_since), ()
    return life, ()


def ready_closed(service: Service, life: Life, now: float) -> Transition:
    """Fail a start: a living process has closed its ready_fd without a message, and will never be ready."""
    if is_last(life):
        return tell_last(service, life, now)
    if life.state is not State.STARTING or life.step is not Step.READY or service.ready != "fd":
        return life, ()
    told = because(life, Cause.NOT_READY, "closed its ready_fd without saying that it is ready")
    return _never_ready(service, told, now)


def reloading(service: Service, life: Life, now: float) -> Transition:
    """Note that the service reloads; it will report when it is ready again."""
    if life.state is not State.RUNNING:
        return life, ()
    entered = enter(life, State.RELOADING, now, "reloading", after(now, service.start_timeout))
    return entered._replace(watchdog_at=life.watchdog_at), ()


def drained(service: Service, life: Life, now: float) -> Transition:
    """Go on with the stop: no client is queued on the old sockets any more, or the time limit has passed.

    After another order to stop, this has no effect.
    """
    if life.state is not State.STOPPING or life.step is not Step.DRAIN:
        return life, ()
    return signalled(service, life, now), (Act.HANDOVER_SIGNAL,)


def resumed(service: Service, life: Life, now: float) -> Transition:
    """Go on after the supervisor has executed itself anew: a drain that was under way begins again, as does sleep."""
    if life.state is State.ASLEEP:
        return life, (Act.SLEEP,)
    return begin_drain(life, now) if life.state is State.STOPPING and life.step is Step.DRAIN else (life, ())


def alive(service: Service, life: Life, now: float) -> Transition:
    """Note a message of the service to its watchdog."""
    if life.watchdog_at is None or service.watchdog is None:
        return life, ()
    return life._replace(watchdog_at=now + service.watchdog), ()


def extended(service: Service, life: Life, now: float, seconds: float) -> Transition:
    """Extend the deadline of the state to `seconds` from now: never shorten it, nor extend it by much at once."""
    if life.deadline is None or life.killed or life.state is State.BACKOFF or life.step is Step.DRAIN:
        return life, ()
    return life._replace(deadline=max(life.deadline, now + min(seconds, LONGEST_EXTENSION))), ()


def granted(service: Service, life: Life, now: float, seconds: float) -> Transition:
    """Extend time limits after the supervisor or the machine did not run for a while; a back-off is not extended."""
    if life.state is State.BACKOFF:
        return life, ()
    deadline, watchdog_at = (None if at is None else at + seconds for at in (life.deadline, life.watchdog_at))
    return life._replace(deadline=deadline, watchdog_at=watchdog_at), ()


def recovered(service: Service, life: Life, now: float, alive: bool) -> Transition:
    """Take over a life after another spawnd was lost; `alive`: its main process still lives.

    Events that only spawnd could have noticed are lost: the end of a check, the success of `exec`, readiness,
    the last messages to the watchdog. If the process is gone, `exited` follows.
    """
    match life.state:
        case State.STARTING if life.step is Step.CHECK:
            return wait_again(life, now), ()
        case State.STARTING if life.step is Step.SETUP:
            return life, ()
        case State.STARTING if alive and service.ready == "exec" and not service.forking:
            return come_up(service, life, now), ()
        case State.STARTING:
            return life._replace(step=Step.UNHEARD), ()
        case State.RUNNING | State.RELOADING if alive:
            return life._replace(watchdog_at=after(now, service.watchdog)), ()
        case State.STOPPING if alive and is_last(life) and service.ready == "exec":
            return tell_last(service, life, now)
        case State.STOPPING if alive:
            return resumed(service, life, now)
        case State.ASLEEP:
            return resumed(service, life, now)
        case _:
            return life, ()


def not_begun(service: Service, life: Life, now: float) -> Transition:
    """Take over a life whose process was about to be made when the other spawnd was lost: there is none."""
    match life.step:
        case Step.CHECK:
            return life, (Act.CHECK,)
        case Step.SETUP:
            return call_setup(service, life, now)
        case Step.TEARDOWN:
            return life, (Act.CALL_STOP,)
        case _:
            return life, (Act.LAUNCH,)


def timed_out(service: Service, life: Life, now: float) -> Transition:
    """Handle a deadline that has passed: `due`."""
    if life.watchdog_at is not None and life.watchdog_at <= now and life.state in UP:
        return watchdog_missed(service, life, now)
    match life.state:
        case State.BACKOFF:
            again = life._replace(restarts=life.restarts + 1)
            if life.set_up:
                return tear_down_again(service, again, now)
            return wait_by_itself(service, again, now, life.reason), ()
        case State.STARTING if life.step is Step.UNHEARD:
            return come_up(service, life, now, "running; whether it said that it is ready was not heard"), ()
        case State.STARTING:
            cause, what = LATE.get(life.step, (Cause.NOT_READY, "not ready"))
            return _never_ready(service, because(life, cause, f"{what} after {span(now - life.since)}"), now)
        case State.RELOADING:
            back = come_up(service, life, now)._replace(up_since=life.up_since)
            return back._replace(reason=f"reload not finished after {span(now - life.since)}"), ()
        case State.STOPPING if life.step is Step.DRAIN:
            return drained(service, life, now)
        case State.STOPPING if life.step is Step.LAST:
            return tell_last(service, life, now)
        case State.STOPPING:
            return life._replace(deadline=None, killed=True), (Act.KILL,)
        case _:
            raise ImpossibleEvent("timed_out", life)


def _never_ready(service: Service, life: Life, now: float) -> Transition:
    # the start is tried again, so things that the process keeps for its successor must stay
    leaves = life.cause is Cause.NOT_READY and service.handover_signal is not None
    act = Act.HANDOVER_SIGNAL if leaves else Act.STOP_SIGNAL
    return begin_stop(service, life, now, Then.FAIL, life.reason), (act,)


def watchdog_missed(service: Service, life: Life, now: float) -> Transition:
    if life.state not in UP:
        return life, ()
    missed = because(life, Cause.WATCHDOG, "watchdog missed")
    return begin_stop(service, missed, now, Then.FAIL, missed.reason), (Act.ABORT,)


def start_failed(service: Service, life: Life, now: float, reason: str, spread: float) -> Transition:
    """Fail a start, or the call of a function, without a process: opening a descriptor or forking has failed."""
    match life.state:
        case State.STARTING:
            return end_by_itself(service, because(life, Cause.EXIT, reason), now, Then.FAIL, reason, spread)
        case State.ASLEEP:  # its sockets cannot be opened
            return fail(service, because(life, Cause.EXIT, reason), now, reason, spread)
        case State.STOPPING if life.step is Step.TEARDOWN:
            return not_torn_down(service, life, now, reason, spread)
        case State.STOPPING if goes_down(life) and life.step in (Step.LAST, Step.TOLD):
            return keeps_on(life, now, reason)
        case State.STOPPING if life.step in (Step.LAST, Step.TOLD):  # it is to start again
            return process_gone(service, life._replace(kept=True), now, reason, spread)
        case _:
            raise ImpossibleEvent("start_failed", life)


def exited(
    service: Service, life: Life, now: float, clean: bool, reason: str, spread: float, status: int | None = None
) -> Transition:
    """Handle the end of the process; `clean` if it ended well, `reason` is how it ended.

    `spread` is the random number in -1..1 for a back-off. `status` is the exit status of the main process, if any.
    """
    final = status is not None and status in service.no_restart_status
    ended = because(life, Cause.EXIT, reason)._replace(final=final)
    match life.state:
        case State.STARTING if life.step is Step.CHECK and clean:
            return call_setup(service, life, now)
        case State.STARTING if life.step is Step.CHECK:
            failed = because(life, Cause.CHECK, f"check failed: {reason}")
            return end_by_itself(service, failed, now, Then.FAIL, failed.reason, spread)
        case State.STARTING if life.step is Step.SETUP and clean:
            return launch(service, life, now)
        case State.STARTING if life.step is Step.SETUP:
            return end_by_itself(service, because(life, Cause.FUNCTION, reason), now, Then.FAIL, reason, spread)
        case State.STARTING:
            if service.task and clean:
                return end_by_itself(service, ended, now, Then.END, reason, spread)
            early = " before it was ready" if life.step is Step.READY else ""
            return end_by_itself(service, ended, now, Then.FAIL, f"{reason}{early}", spread)
        case State.RUNNING | State.RELOADING if service.has_process:
            return end_by_itself(service, ended, now, Then.END if clean else Then.FAIL, reason, spread)
        case State.STOPPING if life.step is Step.TEARDOWN:
            return torn_down(service, life, now, clean, reason, spread)
        case State.STOPPING if life.step is Step.SETUP and clean:  # `start` ended before the order to stop took effect
            return process_gone(service, life._replace(set_up=True), now, reason, spread)
        case State.STOPPING if goes_down(life) and not clean and life.step is Step.LAST:
            return keeps_on(life, now, reason)
        case State.STOPPING if goes_down(life) and not clean and keeps(service, life):
            return launch_last(service, begin_stop(service, life, now, Then.REST, life.reason), now)
        case State.STOPPING:
            return process_gone(service, life, now, reason, spread)
        case _:
            raise ImpossibleEvent("exited", life)
