"""Status: all about the services that are named, with what those say that have a function for it."""

from __future__ import annotations

from functools import partial

from supervisor.control.core import Core
from supervisor.control.errors import InvalidParameter
from supervisor.control.names import resolve
from supervisor.control.rows import details
from supervisor.lifecycle.life import State
from supervisor.process.answer import Answer
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters

UP = (State.RUNNING, State.RELOADING)
AT_ONCE = 8  # functions that run at a time, each in a process: hundreds would keep everybody waiting


def run(exchange: Exchange, core: Core) -> None:
    parameters = Parameters(exchange.call.parameters)
    wanted = parameters.strings("names")
    parameters.end()
    if not wanted:
        raise InvalidParameter("names")
    Asking(exchange, core, resolve(wanted, core.units)).begin()


class Asking:
    """Asks those that say more of themselves, a few at a time, and replies when all have answered."""

    def __init__(self, exchange: Exchange, core: Core, names: list[str]) -> None:
        self._exchange = exchange
        self._core = core
        self._names = names
        self._said: dict[str, str] = {}
        self._waiting = [name for name in names if self._says_more(name)]
        self._asked = 0

    def begin(self) -> None:
        for _ in range(AT_ONCE):
            self._ask()
        if not self._asked:
            self._reply()

    def _ask(self) -> None:
        while self._waiting and not self._exchange.ended:
            name = self._waiting.pop(0)
            if self._says_more(name):  # else it has been stopped meanwhile
                self._asked += 1
                self._core.ask_status(name, partial(self._answered, name))
                return

    def _answered(self, name: str, answer: Answer) -> None:
        self._said[name] = answer.text
        self._exchange.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._ask()
        if len(self._said) == self._asked:
            self._reply()

    def _says_more(self, name: str) -> bool:
        unit = self._core.units.get(name)
        return unit is not None and "status" in unit.service.functions and unit.life.state in UP

    def _reply(self) -> None:
        now = self._exchange.loop.clock()
        there = [name for name in self._names if name in self._core.units]
        self._exchange.reply({"services": [self._row(name, now) for name in there]})

    def _row(self, name: str, now: float) -> dict[str, object]:
        unit = self._core.units[name]
        texts = "; ".join(filter(None, (unit.status_text, self._said.get(name, ""))))
        return details(unit, self._core, now) | {"status_text": texts}
