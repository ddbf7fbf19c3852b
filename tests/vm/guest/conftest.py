"""Checks that run in a machine.

Collected on the host as well, by the same names: there each is a case for every release, whose result comes from the
machine of that release.  A check without `@pytest.mark.boot(2)` runs after the first start of the machine, one with it
after the second, and so on; the machine is rebooted in between.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator

import pytest

from tests.vm.guest.orders import Orders
from tests.vm.suites import SUITES

IN_MACHINE = "MACHINE" in os.environ


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    suites = [Orders.read().suite] if IN_MACHINE else SUITES
    if "suite" not in metafunc.fixturenames:
        metafunc.fixturenames.append("suite")
    metafunc.parametrize("suite", suites)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_MACHINE and report.failed:
        report.sections.append(("journal", _journal()))
    return report


def _journal() -> str:
    command = ["journalctl", "--boot", "--no-pager", "--lines=80", "--output=short-monotonic"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
