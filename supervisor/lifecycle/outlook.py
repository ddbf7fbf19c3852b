"""What a life says of what is to come, without any event: whether it is wanted, what follows, who lives on.  Pure."""

from __future__ import annotations

from supervisor.definitions.service import Service
from supervisor.lifecycle.life import WITH_PROCESS, Cause, Life, State, Step, Then

UP = (State.RUNNING, State.RELOADING)


def is_wanted(life: Life) -> bool:
    """Whether it has, or will have, a process unless somebody stops it; also after it has failed."""
    return life.state not in (State.STOPPED, State.DONE) and not goes_down(life)


def comes_up(life: Life) -> bool:
    """Whether it is up or on its way, so that a start changes nothing."""
    if life.state is State.STOPPING:
        return life.then is Then.START
    return life.state in (State.WAITING, State.STARTING, *UP)


def goes_down(life: Life) -> bool:
    """Whether it is stopping for good."""
    return life.state is State.STOPPING and life.then is Then.REST


def runs(service: Service, life: Life) -> bool:
    """Whether there is a process in this state, so that its end is heard of: a check, a function, the main one."""
    return life.state in WITH_PROCESS and (service.has_process or life.state not in UP)


def spares_others(service: Service, life: Life, clean: bool = False) -> bool:
    """Whether processes beside the one that has just ended live on: not after a stop.

    `clean` is how it has ended, where that is known: what a function has started is there to stay.
    """
    if life.step is Step.SETUP and life.state is State.STARTING:
        return clean
    if life.step is Step.SETUP and life.state is State.STOPPING and clean:  # for the function that comes next
        return "stop" in service.functions or is_renewed(service, life)
    return service.kill_mode == "process" and not goes_down(life)


def is_renewed(service: Service, life: Life) -> bool:
    """Whether its function `restart` is to come; what another definition set up this one does not know."""
    return life.then is Then.START and life.cause is not Cause.DEFINITION and "restart" in service.functions


def is_to_tear_down(service: Service, life: Life) -> bool:
    """Whether its function `stop` is to come, once the process is gone."""
    return life.set_up and "stop" in service.functions


def keeps(service: Service, life: Life) -> bool:
    """Whether it may have what its process does not take with it, for the next one, which knows how to end it."""
    hands_over = service.kill_mode == "process" and service.handover_signal is not None
    return hands_over and service.has_process and not service.functions and life.starts > 0
