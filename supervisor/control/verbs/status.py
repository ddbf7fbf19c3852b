"""Status: all facts about the named services, including the answers of their functions `status`."""

from __future__ import annotations

from functools import partial

from supervisor.control.core import Core
from supervisor.control.errors import InvalidParameter
from supervisor.control.orders import details, resolve
from supervisor.lifecycle.life import UP
from supervisor.process.run import Answer
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall

AT_ONCE = 8  # functions that run at a time, each in a process: hundreds would delay everything else


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    wanted = parameters.strings("names")
    parameters.end()
    if not wanted:
        raise InvalidParameter("names")
    Asking(pending, core, resolve(wanted, core.manager.units)).begin()


class Asking:
    """Asks the services with such a function, a few at a time, and replies when all have answered."""

    def __init__(self, pending: PendingCall, core: Core, names: list[str]) -> None:
        self._pending = pending
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
        while self._waiting and not self._pending.ended:
            name = self._waiting.pop(0)
            if self._says_more(name):  # else the service was stopped meanwhile
                self._asked += 1
                self._core.side_calls.ask_status(name, partial(self._answered, name))
                return

    def _answered(self, name: str, answer: Answer) -> None:
        self._said[name] = answer.text
        self._pending.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._ask()
        if len(self._said) == self._asked:
            self._reply()

    def _says_more(self, name: str) -> bool:
        unit = self._core.manager.units.get(name)
        return unit is not None and "status" in unit.service.functions and unit.life.state in UP

    def _reply(self) -> None:
        now = self._pending.loop.clock()
        there = [name for name in self._names if name in self._core.manager.units]
        self._pending.reply({"services": [self._row(name, now) for name in there]})

    def _row(self, name: str, now: float) -> dict[str, object]:
        unit = self._core.manager.units[name]
        texts = "; ".join(filter(None, (unit.status_text, self._said.get(name, ""))))
        return details(unit, self._core, now) | {"status_text": texts}
