"""Waiting until services have come to what was ordered, then answering the call."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from supervisor.control.core import Core, Unit
from supervisor.control.orders import GONE, Judge, Order, reply_results, result, so_far
from supervisor.lifecycle.life import AT_REST
from supervisor.lifecycle.outcome import Outcome
from supervisor.varlink.exchange import Exchange

JudgeNamed = Callable[[str, Unit | None], Outcome | None]  # None for a unit that is gone
Finish = Callable[[list[dict[str, object]]], None]  # is given the results in the order of the names


def answer(exchange: Exchange, core: Core, order: Order, judge: Judge) -> None:
    """Answer an order that has been given to the core: when it is carried out or, if nobody waits, now."""
    if order.waits:
        Wait(
            exchange,
            core,
            order.names,
            lambda _name, unit: GONE if unit is None else judge(unit),
            lambda results: exchange.reply({"results": results}),
        )
    else:
        reply_results(exchange, core, [(name, so_far(core.units[name], judge)) for name in order.names])


class Wait:
    """Calls `finish` once, when all are decided.

    Ends with the exchange, whether that is answered or its caller hangs up.  A service is
    judged again whenever its own state changes; all of them together, once a round of the
    loop, when another service comes to rest, which may leave them waiting for ever.
    """

    def __init__(
        self, exchange: Exchange, core: Core, names: Iterable[str], judge: JudgeNamed, finish: Finish
    ) -> None:
        self._exchange = exchange
        self._core = core
        self._judge = judge
        self._finish = finish
        self._results: dict[str, dict[str, object]] = {name: {} for name in names}
        self._pending = set(self._results)
        self._planned = False
        exchange.on_end(core.observe(self._changed))
        self._judge_all()

    def look(self, name: str) -> None:
        """Something is known about one of them that no change of its state tells."""
        if name in self._pending and not self._exchange.ended:
            self._judge_one(name, self._core.units.get(name))
            self._finish_if_complete()

    def _changed(self, unit: Unit) -> None:
        if unit.name in self._pending:
            self._judge_one(unit.name, unit)
            self._finish_if_complete()
        if unit.life.state in AT_REST and self._pending and not self._planned:
            self._planned = True
            self._exchange.loop.call_soon(self._judge_all)

    def _judge_all(self) -> None:
        self._planned = False
        if self._exchange.ended:
            return
        for name in list(self._pending):
            self._judge_one(name, self._core.units.get(name))
        self._finish_if_complete()

    def _judge_one(self, name: str, unit: Unit | None) -> None:
        outcome = self._judge(name, unit)
        if outcome is not None:
            self._pending.discard(name)
            self._results[name] = result(self._core, name, outcome)

    def _finish_if_complete(self) -> None:
        if not self._pending and not self._exchange.ended:
            self._core.settle()
            self._finish(list(self._results.values()))
