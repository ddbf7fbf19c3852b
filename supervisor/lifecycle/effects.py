"""What the moves of a plan are for each service, in a word and in a sentence.  Pure."""

from __future__ import annotations

from supervisor.definitions.service import Service
from supervisor.lifecycle.change import Change
from supervisor.lifecycle.comparison import Comparison
from supervisor.lifecycle.life import Cause, Life, State, Then
from supervisor.lifecycle.moves import Down, Moves, Up
from supervisor.lifecycle.outlook import goes_down
from supervisor.lifecycle.plan import Effect, ServicePlan

RUNS = (State.STARTING, State.RUNNING, State.RELOADING)
UP = (State.RUNNING, State.RELOADING)
NO_LONGER = "no longer defined"
STATUS_STOP = 'its status is "stop"'
STATUS_START = 'its status is "start"'
RELEASED = "nothing holds it back any more"


class Effects:
    """`released` are services that start by themselves, as what they waited for comes."""

    def __init__(self, both: Comparison, moves: Moves, released: set[str]) -> None:
        self._both = both
        self._moves = moves
        self._released = released

    def services(self, reloads: bool) -> dict[str, ServicePlan]:
        """Those for which something is planned, in order of definition, those that go at the end."""
        both = self._both
        gone = [name for name in both.old if name not in both.new]
        entries = [self._entry(name, reloads) for name in both.new if reloads or not self._is_left_alone(name)]
        entries += [self._entry(name, reloads) for name in gone]
        return {entry.name: entry for entry in entries if entry.effect is not Effect.NOTHING}

    def _is_left_alone(self, name: str) -> bool:
        """Whether it is seen at once that nothing becomes of it: of most of a thousand it is."""
        moves = self._moves
        moved = name in moves.up or name in moves.down or name in self._released
        return not moved and self._both.kinds.get(name) is Change.NOTHING

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
        if name in self._moves.down:
            return Effect.STOP, _why_down(self._moves.down[name])
        if name not in self._both.new:
            return Effect.ADOPT, NO_LONGER
        up = self._moves.up.get(name)
        if up is not None and (effect := self._brought_up(name, up, life)) is not None:
            return effect, self._why_up(name, up, life)
        if name in self._released:
            return Effect.START, RELEASED
        if name not in self._both.old:
            return Effect.ADOPT, self._why_not_started(name)
        return self._known(name, life, up)

    def _brought_up(self, name: str, up: Up, life: Life) -> Effect | None:
        """What a move up is for a service; None: it is up already, or on its way."""
        if life.state in RUNS:
            renewal = Effect.REBUILD if self._both.kinds.get(name) is Change.REBUILD else Effect.RESTART
            return renewal if up.renew else None
        comes_anyway = life.state is State.WAITING or (life.state is State.STOPPING and life.then is Then.START)
        was_to_go = name in self._both.stopping or name not in self._both.old
        return None if comes_anyway and not was_to_go else Effect.START

    def _why_up(self, name: str, up: Up, life: Life) -> str:
        if up.needed_by:
            return f"{up.needed_by} needs it"
        if name not in self._both.old:
            return "defined again" if name in self._both.leaving else "new"
        if "status" in self._both.keys[name] and life.state not in RUNS:
            return STATUS_START
        again = "" if life.state in RUNS else "tried again: "
        return again + self._changed(name)

    def _why_not_started(self, name: str) -> str:
        if not self._both.new[name].autostart:
            return f"new; {STATUS_STOP}"
        return f"new; conflicts with {self._moves.displaced[name]}"

    def _known(self, name: str, life: Life, up: Up | None) -> tuple[Effect, str]:
        """Of one that is neither started nor stopped: whether spawnd alone learns something, or its cgroup too."""
        kind = self._both.kinds[name]
        was_to_go = name in self._both.stopping or "status" in self._both.keys[name]
        if kind is Change.LIMITS and life.state in RUNS:
            return Effect.LIMITS, self._changed(name)
        if up is not None and up.needed_by and was_to_go:
            return Effect.ADOPT, f"stays up, {up.needed_by} needs it"
        if kind is Change.NOTHING:
            return Effect.NOTHING, ""
        if not self._is_deferred(name, life):
            return Effect.ADOPT, f"counts from now on: {self._changed(name)}"
        comes = life.state in (State.WAITING, State.BACKOFF) or (life.state is State.STOPPING and not goes_down(life))
        when = "as it starts" if comes and name not in self._both.stopping else "at its next start"
        return Effect.ADOPT, f"takes effect {when}: {self._changed(name)}"

    def _is_deferred(self, name: str, life: Life) -> bool:
        """Whether the new definition, where no move brings it into force, waits for the next start."""
        kind = self._both.kinds.get(name, Change.NOTHING)
        if kind is Change.LIMITS:
            return life.state not in RUNS
        return kind in (Change.RESTART, Change.REBUILD)

    def _changed(self, name: str) -> str:
        return f"{', '.join(self._both.keys[name])} changed"


def _why_reload(service: Service) -> str:
    """What it reloads by; empty where it does not."""
    if "reload" in service.functions:
        return "it has a function reload"
    return "it has a reload_signal" if service.reload_signal is not None else ""


def _why_down(down: Down) -> str:
    if down.cause is Cause.CONFLICT:
        return f"conflicts with {down.other}"
    return NO_LONGER if down.cause is Cause.REMOVED else STATUS_STOP
