"""What the calls that change something have in common: whom they are for, what came of it for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from supervisor.control.core import Core, Unit
from supervisor.control.errors import InvalidParameter
from supervisor.control.names import resolve
from supervisor.control.rows import reason
from supervisor.lifecycle.life import State
from supervisor.lifecycle.outcome import Outcome
from supervisor.log.logger import log
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters

Judge = Callable[[Unit], Outcome | None]  # whether it has come to what was ordered; None: not yet
NAMED = 8  # services that a line of the log names
GONE = Outcome(False, "it is not defined any more")


@dataclass(frozen=True, slots=True)
class Order:
    """`names` has at least one, all of them exist; `literal` is what was asked for, patterns and all."""

    names: list[str]
    waits: bool
    literal: frozenset[str]


def take_order(exchange: Exchange, core: Core, parameters: Parameters, may_wait: bool = True) -> Order:
    """The order in a call, written to the log with who gave it; `parameters` has nothing else left.

    Whoever takes no reply has nothing to wait for.  Raises ControlError.
    """
    wanted = parameters.strings("names")
    waits = may_wait and not parameters.boolean("no_wait") and not exchange.call.oneway
    parameters.end()
    if not wanted:
        raise InvalidParameter("names")
    names = resolve(wanted, core.units)
    exchange.once(lambda: log_order(exchange, names))
    return Order(names, waits, frozenset(wanted))


def log_order(exchange: Exchange, names: Sequence[str]) -> None:
    """Say in the log who asks for what."""
    client, verb = exchange.client, exchange.call.method.rpartition(".")[2].lower()
    more = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
    log.info("%s of %s%s: asked for by uid %d, pid %d", verb, ", ".join(names[:NAMED]), more, client.uid, client.pid)


def reply_results(exchange: Exchange, core: Core, outcomes: Sequence[tuple[str, Outcome]]) -> None:
    core.settle()
    exchange.reply({"results": [result(core, name, outcome) for name, outcome in outcomes]})


def result(core: Core, name: str, outcome: Outcome) -> dict[str, object]:
    """One result, with the state of the service as it is now."""
    unit = core.units.get(name)
    state = State.STOPPED if unit is None else unit.life.state
    return {"name": name, "ok": outcome.ok, "state": state.value, "message": outcome.message}


def so_far(unit: Unit, judge: Judge) -> Outcome:
    """What is told to one who does not wait: undecided is as good as done, with what holds it up."""
    return judge(unit) or Outcome(True, reason(unit))
