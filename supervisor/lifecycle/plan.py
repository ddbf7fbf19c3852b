"""What other definitions do to the services: decided here once, shown by `plan`, carried out by a reload.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from supervisor.definitions.service import Definitions, Service, Settings
from supervisor.lifecycle.change import Change
from supervisor.lifecycle.moves import Moves

SETTINGS = ("control_group", "log_level", "cgroup")
AT_BOOT = frozenset({"cgroup"})  # what spawnd looks at when it starts, and not again

class Effect(StrEnum):
    """What becomes of a service.  Before `RESTART` its process goes on in any case."""

    NOTHING = "nothing"
    ADOPT = "adopt"  # spawnd knows it from now on, or takes it over when it starts
    LIMITS = "limits"  # written to its cgroup
    RELOAD = "reload"  # asked to reload
    RESTART = "restart"
    REBUILD = "rebuild"  # descriptors opened or closed, and a restart
    START = "start"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What is planned for one service.

    `old` is None where it is new, `new` where it is not defined any more; `keys` differ between
    the two.  `deferred`: the new definition takes effect when the service starts the next time.
    `reloads`: it is asked to reload.  `starts` are those that it had when this was planned.
    `internal`: it is built in.
    """

    name: str
    old: Service | None
    new: Service | None
    keys: tuple[str, ...]
    effect: Effect
    reason: str
    deferred: bool = False
    reloads: bool = False
    starts: int = 0
    internal: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """`services` has those for which something is planned, in order of definition, those that go at the end.

    `moves` are the orders to be given, `kinds` what the new definition of each service that stays
    asks for.  `settings` are the keys of those of spawnd that change.
    """

    services: dict[str, ServicePlan]
    moves: Moves
    kinds: dict[str, Change]
    settings: tuple[str, ...]
    old_settings: Settings
    definitions: Definitions

    def is_empty(self) -> bool:
        return not self.services and not self.settings
