"""Services with their lives, as the cause of what they do is looked for in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from supervisor.definitions.service import Service
from supervisor.lifecycle.cause import Link, chain
from supervisor.lifecycle.dependencies import Obstacle, conflicts
from supervisor.lifecycle.life import Ended, Idleness, Life, State

NOW = 1000.0


@dataclass(frozen=True)
class Subject:
    service: Service
    life: Life
    ended: Ended | None = None
    obstacle: Obstacle | None = None
    undecided: str = ""
    stale: str = ""
    call_ended: Ended | None = None
    idle: Idleness | None = None


def subject(
    name: str,
    state: State,
    *,
    ended: Ended | None = None,
    call_ended: Ended | None = None,
    obstacle: Obstacle | None = None,
    keys: dict[str, Any] | None = None,
    **life: Any,
) -> Subject:
    """A service of that name, with some keys, and its life."""
    return Subject(Service(name, **(keys or {})), Life(state, NOW - 10, **life), ended, obstacle, call_ended=call_ended)


def links_of(*subjects: Subject) -> tuple[Link, ...]:
    """Why the first of them does not run."""
    units = {subject.service.name: subject for subject in subjects}
    rivals = conflicts({name: subject.service for name, subject in units.items()})
    return chain(subjects[0].service.name, units, rivals)
