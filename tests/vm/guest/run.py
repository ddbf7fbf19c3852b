"""In the machine: runs the checks that are due in this boot, and then reboots for the others or powers off."""

from __future__ import annotations

import os
import subprocess
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.vm.guest import orders
from tests.vm.guest.orders import Orders

BOOTS = Path("/var/lib/checks-boots")
# A busy host that emulates a processor is slow, and a check that hangs must still end before the host gives up.
CHECK_TIMEOUT_S = 900
OPTIONS = [
    "--verbose",
    "--color=no",
    "-p",
    "no:cacheprovider",
    "-p",
    "pytest_timeout",
    "-o",
    f"timeout={CHECK_TIMEOUT_S}",
]
# What is said of single checks, or of none that are due in this boot; anything else is said of them all.
JUDGED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class Port:
    """The line to the host.  What has been sent has left the machine, whatever becomes of it."""

    def __init__(self, number: int, token: str) -> None:
        self._number = number
        self._token = token

    def send(self, kind: str, **content: Any) -> None:
        rest = orders.encode(self._token, kind, content)
        while rest:
            rest = rest[os.write(self._number, rest) :]
        termios.tcdrain(self._number)


class Reporter:
    """A plugin of pytest: selects the checks of this boot and sends what becomes of them."""

    def __init__(self, port: Port, boot: int) -> None:
        self._port = port
        self._boot = boot
        self._config: pytest.Config | None = None
        self.more_to_come = False

    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        due = [item for item in items if boot_of(item) == self._boot]
        self.more_to_come = any(boot_of(item) > self._boot for item in items)
        config.hook.pytest_deselected(items=[item for item in items if item not in due])
        items[:] = due

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        assert self._config is not None
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._port.send(orders.REPORT, report=data)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._port.send(orders.PROBLEM, text=f"cannot collect {report.nodeid}:\n{report.longreprtext}")


def boot_of(item: pytest.Item) -> int:
    marker = item.get_closest_marker("boot")
    return int(marker.args[0]) if marker else 1


def next_boot() -> int:
    boot = int(BOOTS.read_text()) + 1 if BOOTS.exists() else 1
    BOOTS.write_text(f"{boot}\n")
    os.sync()
    return boot


@contextmanager
def open_port(token: str) -> Iterator[Port]:
    number = os.open(orders.PORT, os.O_WRONLY | os.O_NOCTTY)
    try:
        tty.setraw(number)
        yield Port(number, token)
    finally:
        os.close(number)


def main() -> None:
    wanted = Orders.read()
    boot = next_boot()
    with open_port(wanted.token) as port:
        port.send(orders.START, boot=boot)
        reporter = Reporter(port, boot)
        status = pytest.main([*OPTIONS, *wanted.checks], plugins=[reporter]) if wanted.checks else pytest.ExitCode.OK
        if status not in JUDGED:
            port.send(orders.PROBLEM, text=f"pytest in the machine: {status!r}")
        then = "reboot" if reporter.more_to_come else "poweroff"
        port.send(orders.END, then=then)
    subprocess.run(["systemctl", "--no-block", then], check=True)


if __name__ == "__main__":
    main()
