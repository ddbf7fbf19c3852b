"""Machines that fail: what is told of them, and that nothing takes them for sound ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.vm import host
from tests.vm.cache import default_cache
from tests.vm.fleet import Fleet
from tests.vm.guest.orders import Orders, new_token
from tests.vm.machine import BARE_KERNEL, Limits, Machine
from tests.vm.suites import SUITES

pytestmark = [pytest.mark.parametrize("suite", SUITES[:1], scope="module"), pytest.mark.timeout(900)]

FAULTS = "tests/vm/guest/faults.py"
# by what fails: more for the kernel, checks, limits
MACHINES: dict[str, tuple[list[str], list[str], Limits]] = {
    "never begins": (["init=/bin/cat"], ["passes"], Limits(boot=15)),
    "ends": (["init=/bin/true"], ["passes"], Limits()),
    "faults": (["init=/bin/echo", "--", "PANIC: double fault"], ["passes"], Limits()),
    "panics": ([], ["passes", "panics", "fails", "reboots_before"], Limits()),
    "hangs": ([], ["fails", "hangs", "passes"], Limits(silence=90)),
}


SAID: list[str] = []


@pytest.fixture(scope="module")
def machines(fleet: Fleet, suite: str) -> Iterator[dict[str, Machine]]:
    """All of them, run side by side until each has ended."""
    cache = default_cache()
    with ExitStack() as stack:
        made = {}
        for name, (kernel, checks, limits) in MACHINES.items():
            orders = Orders(suite, new_token(), [f"{FAULTS}::test_{check}[{suite}]" for check in checks])
            folder = stack.enter_context(cache.scratch())
            machine = Machine(
                fleet.layers[suite], folder, orders, kernel=[*BARE_KERNEL, *kernel], limits=limits, say=SAID.append
            )
            stack.callback(machine.kill)
            machine.start()
            made[name] = machine
        while not all(machine.ended for machine in made.values()):
            for machine in made.values():
                machine.poll()
            time.sleep(0.1)
        yield made


def outcomes(machine: Machine) -> dict[str, list[str]]:
    """Of set-up, call and tear-down of each check, as far as they got."""
    return {
        name.rpartition("::test_")[2].partition("[")[0]: [report["outcome"] for report in reports]
        for name, reports in machine.reports.items()
    }


def test_one_that_never_begins(machines: dict[str, Machine]) -> None:
    machine = machines["never begins"]
    assert "boot 1: killed: checks have not begun 15 s after power-on" in machine.problem
    assert machine.reports == {}


def test_one_that_ends_before(machines: dict[str, Machine]) -> None:
    machine = machines["ends"]
    assert "boot 1: it went down before its checks were through" in machine.problem
    assert "Kernel panic" in machine.problem
    assert machine.reports == {}


@pytest.mark.skipif(host.has_kvm(), reason="needs an emulated processor")
def test_a_fault_of_the_emulator_is_tried_again_once(machines: dict[str, Machine], suite: str) -> None:
    machine = machines["faults"]
    assert SAID == [f"the emulated processor of {suite} has failed before any check: once more"]
    assert "boot 1: it went down before its checks were through" in machine.problem
    assert machine.reports == {}


def test_a_panic_takes_nothing_back(machines: dict[str, Machine]) -> None:
    machine = machines["panics"]
    assert "boot 1: it went down before its checks were through" in machine.problem
    assert "sysrq: Trigger a crash" in machine.problem
    assert outcomes(machine) == {"passes": ["passed"] * 3, "panics": ["passed"]}


def test_a_hang_has_an_end(machines: dict[str, Machine]) -> None:
    machine = machines["hangs"]
    assert "boot 1: killed: silent for 90 s" in machine.problem
    assert outcomes(machine) == {"fails": ["passed", "failed", "passed"], "hangs": ["passed"]}
    assert "assert (1 + 1) == 3" in str(machine.reports)


def test_output_arrives_as_it_was(machines: dict[str, Machine], suite: str) -> None:
    _, call, _ = machines["panics"].reports[f"{FAULTS}::test_passes[{suite}]"]
    assert call["sections"] == [
        ["Captured stdout call", "out: \N{SNOWMAN}\n"],
        ["Captured stderr call", "err\n"],
    ]
