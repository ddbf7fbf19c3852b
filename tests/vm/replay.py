"""A plugin of pytest on the host: a check has the result that it had in the machine of its release.

pytest sees what it would see of a test that it has run itself, as it does with tests that are run by other processes.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests.vm import host
from tests.vm.errors import MachineError
from tests.vm.fleet import Fleet

GUEST = Path(__file__).parent / "guest"


def is_check(item: pytest.Item) -> bool:
    return item.path.parent == GUEST


def needs_machine(item: pytest.Item) -> bool:
    """Checks, and cases on the host that ask for the machines."""
    return is_check(item) or "fleet" in getattr(item, "fixturenames", ())


def suite_of(item: pytest.Item) -> str:
    assert isinstance(item, pytest.Function)
    return str(item.callspec.params["suite"])


class Replay:
    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._fleet: Fleet | None = None
        self._problem: str | None = None
        self._results: dict[str, list[pytest.TestReport]] = {}

    def fleet(self) -> Fleet:
        """The machines of all selected cases, built and started now where nobody has asked before.  Takes minutes.

        Raises MachineError, for everybody who asks alike.
        """
        if self._problem is not None:
            raise MachineError(self._problem)
        if self._fleet is None:
            try:
                self._fleet = self._start()
            except MachineError as error:
                self._problem = str(error)
                raise
        return self._fleet

    def _start(self) -> Fleet:
        if reason := host.reason_without():
            raise MachineError(reason)
        checks: dict[tuple[str, bool], list[str]] = defaultdict(list)
        for item in self._session.items:
            if needs_machine(item):
                is_apart = item.get_closest_marker("apart") is not None
                checks[suite_of(item), is_apart] += [item.nodeid] if is_check(item) else []
        return Fleet(checks, self._say).__enter__()

    def close(self) -> None:
        if self._fleet is not None:
            self._fleet.__exit__(None, None, None)

    def prepare(self, item: pytest.Item) -> None:
        """Wait for what a case needs of the machines: a check for its result, another for them to have started."""
        try:
            fleet = self.fleet()
            if is_check(item):
                self._results[item.nodeid] = [
                    self._unpack(data) for data in fleet.wait_reports(item.nodeid)
                ]
        except MachineError as error:
            self._results[item.nodeid] = [_failed(item, str(error))]

    def _unpack(self, data: dict[str, object]) -> pytest.TestReport:
        config = self._session.config
        report = config.hook.pytest_report_from_serializable(config=config, data=data)
        assert isinstance(report, pytest.TestReport)
        if isinstance(report.longrepr, list):  # of a skip: a tuple, which JSON does not have
            report.longrepr = tuple(report.longrepr)
        return report

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """In place of running a check, whose fixtures are those of the machine."""
        if not is_check(item) or item.nodeid not in self._results:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._results.pop(item.nodeid):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _say(self, text: str) -> None:
        reporter = self._session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"vm: {text}")


def _failed(item: pytest.Item, text: str) -> pytest.TestReport:
    return pytest.TestReport(item.nodeid, item.location, {item.name: 1}, "failed", text, "setup")
