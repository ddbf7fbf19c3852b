"""How all services stand, in one line: `12 of 14 services running, 1 done; failed: web`."""

from __future__ import annotations

from collections.abc import Iterable

from supervisor.lifecycle.life import State

NAMES = 5  # so many are named, the others counted
UP = frozenset({State.RUNNING, State.RELOADING})
COUNTED = (State.STARTING, State.WAITING, State.STOPPING, State.DONE, State.STOPPED)
NAMED = (State.FAILED, State.BACKOFF)


def summary(states: Iterable[tuple[str, State]]) -> str:
    """The line for services by name and state: who needs attention is named."""
    names: dict[State, list[str]] = {}
    for name, state in states:
        names.setdefault(state, []).append(name)
    total = sum(map(len, names.values()))
    up = sum(len(names.get(state, ())) for state in UP)
    text = f"{up} of {total} services running"
    for state in COUNTED:
        if state in names:
            text += f", {len(names[state])} {state}"
    for state in NAMED:
        if state in names:
            text += f"; {state}: {_some(names[state])}"
    return text


def _some(names: list[str]) -> str:
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")
