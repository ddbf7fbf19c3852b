"""The services that a call names, the orders for these services, and the wait for their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from supervisor.control.core import Core, Unit
from supervisor.control.errors import InvalidParameter, NoSuchService
from supervisor.control.rows import reason
from supervisor.definitions.problems import nearest
from supervisor.lifecycle.life import AT_REST, State
from supervisor.lifecycle.transaction import Outcome
from supervisor.log.logger import log
from supervisor.printable import count
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall

Judge = Callable[[Unit], Outcome | None]  # the outcome of an order for a unit; None: not decided yet
JudgeNamed = Callable[[str, Unit | None], Outcome | None]  # the unit is None if it is gone
Finish = Callable[[list[dict[str, object]]], None]  # gets the results in the order of the names

ALL = "all"
MAX_PATTERNS = 64  # each is compared with every service in one turn of the loop
MAX_PATTERN = 256  # characters; longer than any name
NAMED = 8  # services named in a log line
GONE = Outcome(False, "it is not defined any more")


# names


def resolve(wanted: Iterable[str], units: Mapping[str, Unit]) -> list[str]:
    """Return the names of the selected services, each once, in the given order; of a pattern in order of definition.

    A built-in service is selected only by its exact name. Raises NoSuchService for the first name without a match.
    """
    found: dict[str, None] = {}
    patterns = 0
    for name in wanted:
        if name in units:
            found[name] = None
            continue
        if name != ALL:
            patterns += 1
            if patterns > MAX_PATTERNS:
                raise InvalidParameter("names")
        matching = _matching(name, units)
        if not matching and name != ALL:
            raise _unknown(name, units)
        found.update(dict.fromkeys(matching))
    return list(found)


def find(name: str, units: Mapping[str, Unit]) -> Unit:
    """Return the service with exactly this name. Raises NoSuchService."""
    unit = units.get(name)
    if unit is None:
        raise _unknown(name, units)
    return unit


def _unknown(name: str, units: Mapping[str, Unit]) -> NoSuchService:
    """Return the error for a name without a match; for a pattern without a suggestion."""
    near = [] if _is_pattern(name) else nearest(name, units)
    return NoSuchService(name, near[0] if near else None)


def _matching(pattern: str, units: Mapping[str, Unit]) -> list[str]:
    if not _is_pattern(pattern):
        return []
    return [name for name, unit in units.items() if _matches(pattern, unit)]


def _is_pattern(name: str) -> bool:
    return name == ALL or (len(name) <= MAX_PATTERN and not set("*?[").isdisjoint(name))


def _matches(pattern: str, unit: Unit) -> bool:
    return not unit.internal and (pattern == ALL or fnmatchcase(unit.name, pattern))


class Wanted:
    """The services that a lasting request selects, including those that are defined later. No names select all."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._patterns = [name for name in names if _is_pattern(name)][:MAX_PATTERNS] if names else [ALL]

    def __contains__(self, unit: Unit) -> bool:
        return unit.name in self._names or any(_matches(pattern, unit) for pattern in self._patterns)


# orders


@dataclass(frozen=True, slots=True)
class Order:
    """An order in a call. `names` has at least one name, and all of them exist.

    `literal` has the names and patterns that the caller wrote.
    """

    names: list[str]
    waits: bool
    literal: frozenset[str]


def take_order(pending: PendingCall, core: Core, parameters: Parameters, may_wait: bool = True) -> Order:
    """Return the order in a call, and log it with its caller; `parameters` has nothing else left.

    A caller that expects no reply does not wait. Raises ControlError.
    """
    wanted = parameters.strings("names")
    waits = may_wait and not parameters.boolean("no_wait") and not pending.call.oneway
    parameters.end()
    if not wanted:
        raise InvalidParameter("names")
    names = resolve(wanted, core.manager.units)
    pending.once(lambda: log_order(pending, names))
    return Order(names, waits, frozenset(wanted))


def log_order(pending: PendingCall, names: Sequence[str]) -> None:
    """Log which client gives which order."""
    client, verb = pending.client, pending.call.method.rpartition(".")[2].lower()
    more = f" and {count(len(names) - NAMED, 'other')}" if len(names) > NAMED else ""
    log.info("%s of %s%s: asked for by uid %d, pid %d", verb, ", ".join(names[:NAMED]), more, client.uid, client.pid)


def reply_results(pending: PendingCall, core: Core, outcomes: Sequence[tuple[str, Outcome]]) -> None:
    core.writer.flush()
    pending.reply({"results": [result(core, name, outcome) for name, outcome in outcomes]})


def result(core: Core, name: str, outcome: Outcome) -> dict[str, object]:
    """Return the result for one service, with its present state."""
    unit = core.manager.units.get(name)
    state = State.STOPPED if unit is None else unit.life.state
    failed_itself = unit is not None and not outcome.ok and outcome.message == unit.life.reason
    message = reason(unit) if unit is not None and failed_itself else outcome.message
    return {"name": name, "ok": outcome.ok, "state": state.value, "message": message}


def so_far(unit: Unit, judge: Judge) -> Outcome:
    """Return the outcome for a caller that does not wait: undecided counts as done, with the reason as its message."""
    return judge(unit) or Outcome(True, reason(unit))


# the wait


def answer(pending: PendingCall, core: Core, order: Order, judge: Judge) -> None:
    """Answer an order that the core has received: once its outcome is decided, or now if the caller does not wait."""
    if order.waits:
        Wait(
            pending,
            core,
            order.names,
            lambda _name, unit: GONE if unit is None else judge(unit),
            lambda results: pending.reply({"results": results}),
        )
    else:
        reply_results(pending, core, [(name, so_far(core.manager.units[name], judge)) for name in order.names])


class Wait:
    """Calls `finish` once, when the outcome of every service is decided.

    Ends with the call, by its answer or by a disconnect of the caller. A service is judged again whenever its
    own state changes. When another service comes to rest, which may leave them waiting for ever, all services
    are judged again, once per round of the loop.
    """

    def __init__(
        self, pending: PendingCall, core: Core, names: Iterable[str], judge: JudgeNamed, finish: Finish
    ) -> None:
        self._pending = pending
        self._core = core
        self._judge = judge
        self._finish = finish
        self._results: dict[str, dict[str, object]] = {name: {} for name in names}
        self._awaited = set(self._results)
        self._planned = False
        pending.on_end(core.manager.observe(self._changed))
        self._judge_all()

    def look(self, name: str) -> None:
        """Judge a service again for a reason other than a change of its state."""
        if name in self._awaited and not self._pending.ended:
            self._judge_one(name, self._core.manager.units.get(name))
            self._finish_if_complete()

    def _changed(self, unit: Unit) -> None:
        if unit.name in self._awaited:
            self._judge_one(unit.name, unit)
            self._finish_if_complete()
        if unit.life.state in AT_REST and self._awaited and not self._planned:
            self._planned = True
            self._pending.loop.call_soon(self._judge_all)

    def _judge_all(self) -> None:
        self._planned = False
        if self._pending.ended:
            return
        for name in list(self._awaited):
            self._judge_one(name, self._core.manager.units.get(name))
        self._finish_if_complete()

    def _judge_one(self, name: str, unit: Unit | None) -> None:
        outcome = self._judge(name, unit)
        if outcome is not None:
            self._awaited.discard(name)
            self._results[name] = result(self._core, name, outcome)

    def _finish_if_complete(self) -> None:
        if not self._awaited and not self._pending.ended:
            self._core.writer.flush()
            self._finish(list(self._results.values()))
