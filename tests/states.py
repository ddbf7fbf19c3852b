"""The states of a service and the changes between them, found by asking the state machine: `python -m tests.states`.

Each event of `lifecycle/machine.py` is tried in each life that can be reached, for services with every key that
changes what follows.  docs/states.md has what this prints, and a test compares the two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import cache, partial

from supervisor.definitions.service import Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import Cause, Life, State, Transition

MEANINGS = {
    State.STOPPED: "It is down and is to stay down.",
    State.ASLEEP: "Its sockets are open, and it has no process: the first client starts it.",
    State.WAITING: "It is to start, but waits for a dependency, an order, a conflict or an address.",
    State.STARTING: "Its check, its function `start` or its process runs, and it is not ready yet.",
    State.RUNNING: "It is up.",
    State.RELOADING: "It is up, and has announced a reload.",
    State.STOPPING: "It is being stopped: its process is ending, or its function `stop` runs.",
    State.BACKOFF: "It has failed and will be started again after a delay.",
    State.FAILED: "It has failed and will not be started again automatically.",
    State.DONE: "It is a task that has succeeded.",
}
ORDERS = {
    "start": machine.start, "stop": machine.stop, "restart": machine.restart, "sleep": machine.sleep,
    "reset": machine.reset,
}  # fmt: skip
SERVICES = (
    Service(name="plain", exec="/x", start_limit=2),
    Service(name="once", exec="/x", restart="never"),
    Service(name="careful", exec="/x", restart="on-failure", check=("/x",), no_restart_status=(78,)),
    Service(name="notifying", exec="/x", ready="notify", watchdog=1.0),
    Service(name="writing", exec="/x", ready="fd"),
    Service(name="background", exec="/x", forking=True),
    Service(name="task", exec="/x", task=True, restart="on-failure"),
    Service(name="module", functions=("start", "stop", "restart")),
    Service(name="prepared", exec="/x", functions=("start", "stop")),
    Service(name="bare", functions=("stop",)),
    Service(name="keeping", exec="/x", kill_mode="process", handover_signal=10),
    Service(name="on demand", exec="/x", demand=True, start_limit=2, idle_stop=1.0),
)
Event = Callable[[Service, Life, float], Transition]


def _events() -> Iterator[tuple[str, Event]]:
    for name, order in ORDERS.items():
        yield f"`{name}`", order
    yield "its dependencies are up", machine.dependencies_met
    yield "a client comes", _woken
    yield "its last process left the client waiting", _unserved
    yield "the program was executed", machine.executed
    yield "its background process is found", machine.in_background
    yield "it reports that it is ready", machine.ready
    yield "it closes `ready_fd` without a report", machine.ready_closed
    yield "it announces a reload", machine.reloading
    yield "its time limit or delay expires", machine.timed_out
    yield "nobody has used it for `idle_stop`", machine.idle
    yield "it misses its watchdog", machine.watchdog_missed
    yield "it cannot be started", _start_failed
    yield "its process succeeds", partial(_exited, clean=True, status=0)
    yield "its process fails", partial(_exited, clean=False, status=1)
    yield "its process fails", partial(_exited, clean=False, status=78)


def _start_failed(service: Service, life: Life, now: float) -> Transition:
    return machine.start_failed(service, life, now, "no process", 0.0)


def _woken(service: Service, life: Life, now: float) -> Transition:
    if life.state is not State.ASLEEP:
        raise machine.ImpossibleEvent("woken", life)
    return machine.start(service, life, now, Cause.CLIENT)


def _unserved(service: Service, life: Life, now: float) -> Transition:
    return machine.unserved(service, life, now, "unserved", 0.0)


def _exited(service: Service, life: Life, now: float, *, clean: bool, status: int) -> Transition:
    return machine.exited(service, life, now, clean, "ended", 0.0, status)


@cache
def changes() -> dict[tuple[State, State], list[str]]:
    """Return the events that lead from one state to another, for each pair of different states."""
    found: dict[tuple[State, State], dict[str, None]] = {}
    events = list(_events())
    for service in SERVICES:
        seen: set[object] = set()
        lives = deque([Life()])
        while lives:
            life = lives.popleft()
            if _kind(life) in seen:
                continue
            seen.add(_kind(life))
            for text, event in events:
                for later in (0.1, 1000.0):  # before it counts as healthy, and after that
                    if after := _after(event, service, life, life.since + later):
                        lives.append(after)
                        if after.state is not life.state:
                            found.setdefault((life.state, after.state), {})[text] = None
    order = list(State)
    return {pair: list(found[pair]) for pair in sorted(found, key=lambda pair: [order.index(state) for state in pair])}


def _after(event: Event, service: Service, life: Life, now: float) -> Life | None:
    if event is machine.timed_out and (life.deadline is None or now < life.deadline):
        return None  # a watchdog has an event of its own
    if event is machine.watchdog_missed and life.watchdog_at is None:
        return None
    try:
        return event(service, life, now)[0]
    except machine.ImpossibleEvent:
        return None


def _kind(life: Life) -> object:
    """Return the part of a life that decides what can follow."""
    times = (life.deadline is not None, life.watchdog_at is not None, life.up_since is not None)
    marks = (life.set_up, life.final, life.kept, life.killed)
    return (life.state, life.step, life.then, marks, life.cause, life.failures, times)


def page() -> str:
    """Return the generated part of docs/states.md: a picture, the states, and the changes."""
    found = changes()
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.STOPPED}"]
    lines += [f"    {old} --> {new}" for old, new in found]
    lines += ["```", "", "| state | meaning |", "|---|---|"]
    lines += [f"| `{state}` | {MEANINGS[state]} |" for state in State]
    lines += ["", "| from | to | when |", "|---|---|---|"]
    lines += [f"| `{old}` | `{new}` | {'; '.join(events)} |" for (old, new), events in found.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
