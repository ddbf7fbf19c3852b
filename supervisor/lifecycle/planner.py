"""Making the plan for other definitions, from how the services stand.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from supervisor.definitions.service import Definitions, Service
from supervisor.lifecycle.change import Change
from supervisor.lifecycle.comparison import Comparison
from supervisor.lifecycle.dependencies import conflicts, waits_for_ever
from supervisor.lifecycle.effects import Effects
from supervisor.lifecycle.life import WITH_PROCESS, Cause, Life, State
from supervisor.lifecycle.moves import Moves, Standing
from supervisor.lifecycle.outlook import goes_down
from supervisor.lifecycle.plan import SETTINGS, Plan

RUNS = (State.STARTING, State.RUNNING, State.RELOADING)


def make_plan(
    old: Definitions,
    lives: Mapping[str, Life],
    stopping: Collection[str],
    new: Definitions,
    reloads: bool = False,
) -> Plan:
    """The plan for the change from `old` to `new`.

    `lives` has those of `old`, and of services that are not defined any more and not gone yet;
    `stopping` are those that are to stop, whether they have begun to or wait for their turn.
    `reloads`: services with a `reload_signal` are asked to reload besides.
    """
    both = Comparison(old.services, new.services, lives, stopping)
    moves = plan_moves(both)
    services = Effects(both, moves, find_released(both, moves)).services(reloads)
    settings = tuple(key for key in SETTINGS if getattr(old.settings, key) != getattr(new.settings, key))
    return Plan(services, moves, both.kinds, settings, old.settings, new)


def plan_moves(both: Comparison) -> Moves:
    """The orders: what stops first, then what is renewed, what is new, what is to be up from now on."""
    old, new = both.old, both.new
    standing = Standing(new, both.lives, both.conflicts, both.stopping)
    renewed = {name for name, kind in both.kinds.items() if kind in (Change.RESTART, Change.REBUILD)}
    # what was to be gone already has a process of a definition that nobody compares
    renewed |= both.leaving & new.keys()
    moves = Moves(standing, renewed)
    moves.stop((name for name in old if name not in new), Cause.REMOVED)
    moves.stop((name for name in both.kinds if old[name].autostart and not new[name].autostart), Cause.DEFINITION)
    again = [name for name in both.kinds if name in renewed and name not in moves.down]
    moves.bring_up((name for name in again if standing.is_wanted(name)), renew=True, cause=Cause.DEFINITION)
    moves.bring_up(name for name in new if name not in old and new[name].autostart)
    moves.bring_up(name for name in both.kinds if new[name].autostart and not old[name].autostart)
    return moves


@dataclass(frozen=True, slots=True)
class _Member:
    service: Service
    life: Life


def find_released(both: Comparison, moves: Moves) -> set[str]:
    """What waits for something that would not have come, and now does or is not waited for any more."""
    waiting = [name for name in both.kinds if both.lives[name].state is State.WAITING]
    if not waiting:
        return set()
    before = {name: _Member(service, _life_before(name, both)) for name, service in both.old.items()}
    after = {name: _Member(service, _life_after(name, both, moves)) for name, service in both.new.items()}
    rivals = conflicts(both.old)
    return {
        name
        for name in waiting
        if name not in both.stopping
        and name not in moves.down
        and _is_stuck(name, before, rivals)
        and not _is_stuck(name, after, both.conflicts)
    }


def _life_before(name: str, both: Comparison) -> Life:
    life = both.lives[name]
    return Life() if name in both.stopping or goes_down(life) else life


def _life_after(name: str, both: Comparison, moves: Moves) -> Life:
    if name in moves.down:
        return Life()
    up = moves.up.get(name)
    life = _life_before(name, both)
    return Life(State.WAITING) if up is not None and (up.renew or life.state not in RUNS) else life


def _is_stuck(name: str, members: Mapping[str, _Member], rivals: Mapping[str, set[str]]) -> bool:
    """Whether what waits goes on waiting until somebody does something."""
    if waits_for_ever(members[name].service, members) is not None:
        return True
    return any(members[rival].life.state in WITH_PROCESS for rival in rivals.get(name, set()) & members.keys())
