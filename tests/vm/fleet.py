"""The machines of a run of the tests: those of each release that checks were selected of."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from tests.vm.cache import Cache, default_cache
from tests.vm.errors import MachineError
from tests.vm.guest.orders import Orders, new_token
from tests.vm.layers import Builder, Layers, Say
from tests.vm.machine import BARE_KERNEL, CHECKS_KERNEL, Machine

POLL_S = 0.1

# Checks by release, and by whether they run apart: in a bare machine, beside the one of the other checks.
Checks = Mapping[tuple[str, bool], Sequence[str]]


def build(suites: Iterable[str], cache: Cache, say: Say) -> dict[str, Layers]:
    """Layers of each release, built side by side where the cache has them not.  Raises BuildError."""
    builder, wanted = Builder(cache, say), list(suites)
    with ThreadPoolExecutor(len(wanted)) as pool:
        return dict(zip(wanted, pool.map(builder.layers, wanted), strict=True))


class Fleet:
    """As a context manager, whose end is the end of every machine and of all that belongs to it but the cache."""

    def __init__(self, checks: Checks, say: Say, cache: Cache | None = None) -> None:
        self._checks = checks
        self._say = say
        self._cache = cache or default_cache()
        self._machines: dict[str, list[Machine]] = {}  # by release
        self._by_check: dict[str, Machine] = {}
        self.layers: dict[str, Layers] = {}  # by release
        self._stack = ExitStack()
        self._stack.callback(self._cache.close)

    def __enter__(self) -> Fleet:
        """Builds what is missing and starts all.  Raises BuildError."""
        began = time.monotonic()
        self.layers = build({suite for suite, _ in self._checks}, self._cache, self._say)
        self._say(f"machines are built ({time.monotonic() - began:.0f} s), starting them")
        try:
            for (suite, is_apart), checks in self._checks.items():
                self._start(suite, checks, BARE_KERNEL if is_apart else CHECKS_KERNEL)
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self, suite: str, checks: Sequence[str], kernel: Sequence[str]) -> None:
        folder = self._stack.enter_context(self._cache.scratch())
        orders = Orders(suite, new_token(), list(checks))
        machine = Machine(self.layers[suite], folder, orders, kernel=kernel, say=self._say)
        self._stack.callback(machine.kill)
        machine.start()
        self._machines.setdefault(suite, []).append(machine)
        self._by_check.update(dict.fromkeys(checks, machine))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    def wait_reports(self, check: str) -> list[dict[str, Any]]:
        """What pytest said of a check in the machine, serialized: set-up, call, tear-down.

        Raises MachineError where the machine ended, or had to be ended, without having said that.
        """
        machine = self._by_check[check]
        while True:
            self._poll()
            reports = machine.reports.get(check, [])
            if reports and reports[-1]["when"] == "teardown":
                return reports
            if machine.ended:
                raise MachineError(machine.problem or f"its machine has not run {check}")
            time.sleep(POLL_S)

    def wait_end(self, suite: str) -> None:
        """Wait until all machines of a release have powered themselves off.

        Raises MachineError if one did not, or could not run checks.
        """
        machines = self._machines[suite]
        while not all(machine.ended for machine in machines):
            self._poll()
            time.sleep(POLL_S)
        if problems := [machine.problem for machine in machines if machine.problem]:
            raise MachineError("\n".join(problems))

    def _poll(self) -> None:
        """All of them: one may want to be started again while another is waited for."""
        for machines in self._machines.values():
            for machine in machines:
                machine.poll()
