"""The plan of a reload: differences between definitions, and the least change that applies them. No side effects.

The verb `plan` shows it, a reload executes it. Keys are those of the definition files, e.g. `status` in place
of the field `autostart`. Each field of `Service` declares the effect of a change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum
from operator import attrgetter
from typing import Any, NamedTuple

from supervisor.definitions.service import (
    CHANGES,
    FIELDS,
    FUNCTIONS,
    KEY_OF_FIELD,
    Change,
    Definitions,
    Service,
    Settings,
)
from supervisor.lifecycle.dependencies import conflicts, satisfies, waits_for_ever
from supervisor.lifecycle.life import (
    RUNS,
    UP,
    WITH_PROCESS,
    Cause,
    Life,
    State,
    comes_up,
    goes_down,
    lies_down,
)
from supervisor.lifecycle.transaction import Down, Standing, Transaction, Up
from supervisor.printable import listed

RESOURCES = "resources"  # a dict whose entries are keys
OUTPUTS = ("stdout", "stderr")
DIGESTS = ("source_digest", "functions_digest")
ORDER = list(Change)

_values = attrgetter(*FIELDS)

SETTINGS = ("control_group", "log_level", "cgroup")
AT_BOOT = frozenset({"cgroup"})  # settings that spawnd reads only when it starts

RETRIED = {  # causes of a failure, with the keys whose change may have fixed it; None: any change may
    Cause.CHECK: None,  # a check may read files that no definition mentions
    Cause.CHECK_LATE: None,
    Cause.FUNCTION: {"functions"},
    Cause.FUNCTION_LATE: {"functions", "start_timeout"},
    Cause.NOT_READY: {"start_timeout"},
}
NO_LONGER = "no longer defined"
STATUS_STOP = 'its status is "stop"'
STATUS_START = 'its status is "start"'
STATUS_DEMAND = 'its status is "demand"'
RELEASED = "nothing holds it back any more"


def change_of_key(key: str) -> Change:
    """Return the effect of a change of this key.

    A key of another version asks for a restart, to be on the safe side.
    """
    return CHANGES.get(key, Change.RESTART)


def changed_keys(old: Service, new: Service) -> list[str]:
    """Return the keys in which two definitions of one service differ, each once."""
    if old is new or (not old.worker and _values(old) == _values(new)):  # the usual cases, decided quickly
        return []
    return list(dict.fromkeys(_differing(old, new)))


def change(old: Service, new: Service) -> Change:
    """Return the least change that applies the new definition to a running service."""
    return _kind(new, changed_keys(old, new))


def greatest(keys: Iterable[str]) -> Change:
    """Return the effect of several changed keys together."""
    return max(map(change_of_key, keys), key=ORDER.index, default=Change.NOTHING)


def _kind(new: Service, keys: Iterable[str]) -> Change:
    """Return the effect of changed keys on a service; the limits of sessions take effect with another acceptor."""
    kind = greatest(keys)
    return Change.RESTART if kind is Change.LIMITS and new.has_session_cgroups else kind


def _differing(old: Service, new: Service) -> Iterator[str]:
    for field, before, after in zip(FIELDS, _values(old), _values(new), strict=True):
        if field == RESOURCES:
            yield from sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        elif field == "fd":
            if old.own_descriptors() != new.own_descriptors():
                yield field
        elif field in DIGESTS:
            if _have_other_functions(old, new):
                yield FUNCTIONS
        elif before != after or (field == "options" and not _same(before, after)):
            yield KEY_OF_FIELD[field]
    if old.worker and new.worker:
        # A worker without the key shares spawnd's log; a worker with the key does not, whatever its value.
        yield from (key for key in OUTPUTS if (key in old.lines) != (key in new.lines))


def _have_other_functions(old: Service, new: Service) -> bool:
    """Return whether functions may have changed. Those of the same text have not: an upvalue may be the time."""
    if old.source_digest == new.source_digest:
        return False
    return not new.functions_digest or old.functions_digest != new.functions_digest


def _same(one: Any, other: Any) -> bool:
    """Return whether equal free data is the same for a worker, to which true differs from 1."""
    if isinstance(one, dict):
        return all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(_same, one, other))
    return isinstance(one, bool) is isinstance(other, bool)


class Comparison:
    """Old and new definitions with the lives of all their services.

    `keys` has the changed keys of each service that stays, `kinds` their combined effect. `leaving` are
    services outside the old set that are not gone yet. `conflicts` are those of both sets, the new definition
    first. `moved` maps services to a sentence about a path that leads elsewhere by now.
    """

    def __init__(
        self,
        old: Mapping[str, Service],
        new: Mapping[str, Service],
        lives: Mapping[str, Life],
        stopping: Collection[str],
        moved: Mapping[str, str],
    ) -> None:
        self.old = old
        self.new = new
        self.stopping = stopping
        self.lives = {name: lives.get(name, Life()) for name in (*new, *old)}
        self.leaving = {name for name in lives if name not in old}
        self.conflicts = conflicts({**old, **new})
        self.keys = {name: tuple(changed_keys(old[name], new[name])) for name in new if name in old}
        self.kinds: dict[str, Change] = {name: _kind(new[name], keys) for name, keys in self.keys.items()}
        self.kinds.update((name, Change.REBUILD) for name in moved if name in self.kinds)
        self.moved = moved


class Effect(StrEnum):
    """Effect on a service. Effects before `RESTART` leave its process running."""

    NOTHING = "nothing"
    ADOPT = "adopt"  # spawnd knows the definition from now on, or applies it at the next start
    LIMITS = "limits"  # limits are written to its cgroup
    RELOAD = "reload"  # the service is asked to reload
    RESTART = "restart"
    REBUILD = "rebuild"  # descriptors are opened or closed, and the service restarts
    START = "start"
    SLEEP = "sleep"  # its sockets are opened, and a client starts it
    STOP = "stop"


class ServicePlan(NamedTuple):
    """The plan for one service.

    `old` is None for a new service, `new` for a service that is not defined any more; `keys` differ between the two.
    `deferred`: the new definition takes effect at the next start of the service. `reloads`: the service is asked to
    reload. `starts` counts its starts up to this plan. `internal`: the service is built in.
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


class Plan(NamedTuple):
    """The plan for all services.

    `services` has the services with a planned effect in order of definition, services that go at the end.
    `transaction` has the orders, `kinds` the effect of the new definition of each service that stays.
    `settings` are the keys of spawnd's own settings that change.
    """

    services: dict[str, ServicePlan]
    transaction: Transaction
    kinds: dict[str, Change]
    settings: tuple[str, ...]
    old_settings: Settings
    definitions: Definitions

    def notices(self) -> tuple[str, ...]:
        """Return the notices to show; a notice that compares services needs a changed definition of one of them."""
        about = self.definitions.about
        return tuple(
            text for text in self.definitions.notices if text not in about or any(map(self._changes, about[text]))
        )

    def _changes(self, name: str) -> bool:
        entry = self.services.get(name)
        return entry is not None and (entry.old is None or bool(entry.keys))

    def is_empty(self) -> bool:
        return not self.services and not self.settings


def make_plan(
    old: Definitions,
    lives: Mapping[str, Life],
    stopping: Collection[str],
    new: Definitions,
    reloads: bool = False,
    moved: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan for the change from `old` to `new`.

    `lives` has the lives of `old`, and of services that are not defined any more and not gone yet. `stopping`
    are services that are to stop, even if their turn has not come. `reloads`: services with a `reload_signal`
    are also asked to reload. `moved` are services that have to be restarted because a path leads elsewhere
    than to their open file, each with a sentence about that.
    """
    both = Comparison(old.services, new.services, lives, stopping, moved or {})
    transaction = plan_moves(both)
    services = Effects(both, transaction, find_released(both, transaction)).services(reloads)
    settings = tuple(key for key in SETTINGS if getattr(old.settings, key) != getattr(new.settings, key))
    return Plan(services, transaction, both.kinds, settings, old.settings, new)


def plan_moves(both: Comparison) -> Transaction:
    """Return the orders: stops first, then renewals, new services, and services that should be up from now on."""
    old, new = both.old, both.new
    standing = Standing(new, both.lives, both.conflicts, both.stopping)
    renewed = {name for name, kind in both.kinds.items() if kind in (Change.RESTART, Change.REBUILD)}
    # a service that was going away has a process of a definition that is not compared
    renewed |= both.leaving & new.keys()
    transaction = Transaction(standing, renewed)
    transaction.stop((name for name in old if name not in new), Cause.REMOVED)
    transaction.stop((name for name in both.kinds if old[name].autostart and not new[name].autostart), Cause.DEFINITION)
    again = [name for name in both.kinds if name in renewed and name not in transaction.down]
    transaction.bring_up((name for name in again if standing.is_wanted(name)), renew=True, cause=Cause.DEFINITION)
    retried = [name for name in both.kinds if name not in renewed | transaction.down.keys() and is_retried(both, name)]
    transaction.bring_up(name for name in retried if standing.is_wanted(name))
    transaction.bring_up(name for name in new if name not in old and new[name].autostart)
    transaction.bring_up(name for name in both.kinds if new[name].autostart and not old[name].autostart)
    no_longer_on_demand = (name for name in both.kinds if old[name].demand and not new[name].demand)
    transaction.bring_up(name for name in no_longer_on_demand if new[name].autostart and standing.is_wanted(name))
    for name, sentence in both.moved.items():
        if name in transaction.up and not both.keys.get(name):
            transaction.up[name] = transaction.up[name]._replace(detail=sentence)
    return transaction


def is_retried(both: Comparison, name: str) -> bool:
    """Return whether a failed service is tried again although none of its changes asks for another process."""
    life = both.lives[name]
    if life.state not in (State.FAILED, State.BACKOFF) or not life.failures or life.cause not in RETRIED:
        return False
    keys = RETRIED[life.cause]
    return keys is None or not keys.isdisjoint(both.keys[name])


class _Member(NamedTuple):
    """A service with its life, as the graph needs them."""

    service: Service
    life: Life


def find_released(both: Comparison, transaction: Transaction) -> set[str]:
    """Return services whose obstacle would have stayed for ever, and disappears."""
    waiting = [name for name in both.kinds if both.lives[name].state is State.WAITING]
    if not waiting:
        return set()
    before = {name: _Member(service, _life_before(name, both)) for name, service in both.old.items()}
    after = {name: _Member(service, _life_after(name, both, transaction)) for name, service in both.new.items()}
    rivals = conflicts(both.old)
    return {
        name
        for name in waiting
        if name not in both.stopping
        and name not in transaction.down
        and _is_stuck(name, before, rivals)
        and not _is_stuck(name, after, both.conflicts)
    }


def _life_before(name: str, both: Comparison) -> Life:
    life = both.lives[name]
    return Life() if name in both.stopping or goes_down(life) else life


def _life_after(name: str, both: Comparison, transaction: Transaction) -> Life:
    if name in transaction.down:
        return Life()
    up = transaction.up.get(name)
    life = _life_before(name, both)
    return Life(State.WAITING) if up is not None and (up.renew or life.state not in RUNS) else life


def _is_stuck(name: str, members: Mapping[str, _Member], rivals: Mapping[str, set[str]]) -> bool:
    """Return whether a service keeps waiting until an operator does something."""
    if waits_for_ever(members[name].service, members) is not None:
        return True
    return any(members[rival].life.state in WITH_PROCESS for rival in rivals.get(name, set()) & members.keys())


class Effects:
    """Effects on all services. `released` are services that start by themselves once their dependencies are up."""

    def __init__(self, both: Comparison, transaction: Transaction, released: set[str]) -> None:
        self._both = both
        self._transaction = transaction
        self._released = released

    def services(self, reloads: bool) -> dict[str, ServicePlan]:
        """Return the services with a planned effect, in order of definition, services that go at the end."""
        both = self._both
        gone = [name for name in both.old if name not in both.new]
        considered = [name for name in both.new if not self._is_left_alone(name, reloads)]
        entries = [self._entry(name, reloads) for name in considered]
        entries += [self._entry(name, reloads) for name in gone]
        return {entry.name: entry for entry in entries if entry.effect is not Effect.NOTHING}

    def _is_left_alone(self, name: str, reloads: bool) -> bool:
        """Return whether nothing happens to a service: a quick check, true for most of a thousand."""
        transaction = self._transaction
        moved = name in transaction.up or name in transaction.down or name in self._released
        if moved or self._both.kinds.get(name) is not Change.NOTHING:
            return False
        return not reloads or self._both.lives[name].state not in UP

    def _entry(self, name: str, reloads: bool) -> ServicePlan:
        both = self._both
        life = both.lives[name]
        effect, reason = self._effect(name, life)
        deferred = effect is Effect.ADOPT and self._is_deferred(name, life)
        asked = reloads and not deferred and life.state in UP and self._can_reload(name, effect)
        if asked and effect is not Effect.LIMITS:
            effect, reason = Effect.RELOAD, reason or _why_reload(both.new[name])
        old, new, keys = both.old.get(name), both.new.get(name), both.keys.get(name, ())
        return ServicePlan(name, old, new, keys, effect, reason, deferred, asked, life.starts)

    def _can_reload(self, name: str, effect: Effect) -> bool:
        if name in self._both.stopping or effect not in (Effect.NOTHING, Effect.ADOPT, Effect.LIMITS):
            return False
        return name in self._both.new and bool(_why_reload(self._both.new[name]))

    def _effect(self, name: str, life: Life) -> tuple[Effect, str]:
        if name in self._transaction.down:
            return Effect.STOP, _why_down(self._transaction.down[name])
        if name not in self._both.new:
            return Effect.ADOPT, NO_LONGER
        up = self._transaction.up.get(name)
        if up is not None and (effect := self._brought_up(name, up, life)) is not None:
            return effect, self._why_up(name, up, life)
        if name in self._released:
            return Effect.START, self._why_released(name)
        if name not in self._both.old:
            return Effect.ADOPT, self._why_not_started(name)
        return self._known(name, life, up)

    def _brought_up(self, name: str, up: Up, life: Life) -> Effect | None:
        """Return the effect of an order to be up; None if the service is up or asleep already, or on its way."""
        if up.sleeps:
            return None if life.state is State.ASLEEP or lies_down(life) else Effect.SLEEP
        if life.state in RUNS:
            renewal = Effect.REBUILD if self._both.kinds.get(name) is Change.REBUILD else Effect.RESTART
            return renewal if up.renew else None
        comes_anyway = comes_up(life)
        was_to_go = name in self._both.stopping or name not in self._both.old
        return None if comes_anyway and not was_to_go else Effect.START

    def _why_up(self, name: str, up: Up, life: Life) -> str:
        if up.needed_by:
            return f"{up.needed_by} needs it"
        if up.sleeps and life.state not in (State.FAILED, State.BACKOFF):
            return f"{'' if name in self._both.old else 'new; '}{STATUS_DEMAND}"
        if name not in self._both.old:
            return "defined again" if name in self._both.leaving else "new"
        if "status" in self._both.keys[name] and life.state not in RUNS:
            return STATUS_START
        again = "" if life.state in RUNS else "tried again: "
        return again + (self._changed(name) or life.reason)

    def _why_released(self, name: str) -> str:
        """Return the reason; some dependencies may have to come first, and may fail again."""
        new, lives, up = self._both.new, self._both.lives, self._transaction.up
        missing = [
            other
            for other in new[name].depends
            if (other in up and up[other].renew) or not satisfies(new[other], lives.get(other, Life()))
        ]
        return f"once {listed(missing)} {'is' if len(missing) == 1 else 'are'} up" if missing else RELEASED

    def _why_not_started(self, name: str) -> str:
        if not self._both.new[name].autostart:
            return f"new; {STATUS_STOP}"
        return f"new; conflicts with {self._transaction.displaced[name]}"

    def _known(self, name: str, life: Life, up: Up | None) -> tuple[Effect, str]:
        """Return the effect on a service that is neither started nor stopped: on spawnd, or also on its cgroup."""
        kind = self._both.kinds[name]
        was_to_go = name in self._both.stopping or "status" in self._both.keys[name]
        if kind is Change.LIMITS and life.state in RUNS:
            return Effect.LIMITS, self._changed(name)
        if up is not None and up.needed_by and was_to_go:
            return Effect.ADOPT, f"stays up, {up.needed_by} needs it"
        if kind is Change.NOTHING:
            return Effect.NOTHING, ""
        if not self._is_deferred(name, life):
            return Effect.ADOPT, f"takes effect at once: {self._changed(name)}"
        comes = life.state in (State.WAITING, State.BACKOFF) or (life.state is State.STOPPING and not goes_down(life))
        when = "as it starts" if comes and name not in self._both.stopping else "at its next start"
        return Effect.ADOPT, f"takes effect {when}: {self._changed(name)}"

    def _is_deferred(self, name: str, life: Life) -> bool:
        """Return whether the new definition waits for the next start, unless an order applies it."""
        kind = self._both.kinds.get(name, Change.NOTHING)
        if life.state is State.ASLEEP:  # what its next process will need is opened now
            return False
        if kind is Change.LIMITS:
            return life.state not in RUNS
        return kind in (Change.RESTART, Change.REBUILD)

    def _changed(self, name: str) -> str:
        keys, moved = self._both.keys[name], self._both.moved.get(name, "")
        return "; ".join(filter(None, (f"{', '.join(keys)} changed" if keys else "", moved)))


def _why_reload(service: Service) -> str:
    """Return how a service reloads; '' if it does not."""
    if "reload" in service.functions:
        return "it has a function reload"
    return "it has a reload_signal" if service.reload_signal is not None else ""


def _why_down(down: Down) -> str:
    if down.cause is Cause.CONFLICT:
        return f"conflicts with {down.other}"
    return NO_LONGER if down.cause is Cause.REMOVED else STATUS_STOP
