"""The machines of a run of the tests, one for each release that checks were selected of."""

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
from tests.vm.machine import Machine

POLL_S = 0.1


def build(suites: Iterable[str], cache: Cache, say: Say) -> dict[str, Layers]:
    """Layers of each release, built side by side where the cache has them not.  Raises BuildError."""
    builder, wanted = Builder(cache, say), list(suites)
    with ThreadPoolExecutor(len(wanted)) as pool:
        return dict(zip(wanted, pool.map(builder.layers, wanted), strict=True))


class Fleet:
    """As a context manager, whose end is the end of every machine and of all that belongs to it but the cache."""

    def __init__(self, checks: Mapping[str, Sequence[str]], say: Say, cache: Cache | None = None) -> None:
        self._checks = checks
        self._say = say
        self._cache = cache or default_cache()
        self._machines: dict[str, Machine] = {}
        self.layers: dict[str, Layers] = {}  # by release
        self._stack = ExitStack()
        self._stack.callback(self._cache.close)

    def __enter__(self) -> Fleet:
        """Builds what is missing and starts all.  Raises BuildError."""
        began = time.monotonic()
        self.layers = build(self._checks, self._cache, self._say)
        self._say(f"machines are built ({time.monotonic() - began:.0f} s), starting them")
        try:
            for suite, checks in self._checks.items():
                self._start(suite, checks)
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self, suite: str, checks: Sequence[str]) -> None:
        folder = self._stack.enter_context(self._cache.scratch())
        machine = Machine(self.layers[suite], folder, Orders(suite, new_token(), list(checks)), say=self._say)
        self._stack.callback(machine.kill)
        machine.start()
        self._machines[suite] = machine

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    def wait_reports(self, suite: str, check: str) -> list[dict[str, Any]]:
        """What pytest said of a check in the machine, serialized: set-up, call, tear-down.

        Raises MachineError where the machine ended, or had to be ended, without having said that.
        """
        machine = self._machines[suite]
        while True:
            self._poll()
            reports = machine.reports.get(check, [])
            if reports and reports[-1]["when"] == "teardown":
                return reports
            if machine.ended:
                raise MachineError(machine.problem or f"machine of {suite}: has not run {check}")
            time.sleep(POLL_S)

    def wait_end(self, suite: str) -> None:
        """Until the machine has powered itself off.  Raises MachineError where it did not, or could not run checks."""
        machine = self._machines[suite]
        while not machine.ended:
            self._poll()
            time.sleep(POLL_S)
        if machine.problem:
            raise MachineError(machine.problem)

    def _poll(self) -> None:
        """All of them: one may want to be started again while another is waited for."""
        for machine in self._machines.values():
            machine.poll()
