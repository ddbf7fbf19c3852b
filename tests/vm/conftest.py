"""On the host the checks of `guest/` are cases, one for each release, and what they say comes from the machines."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.vm import host
from tests.vm.fleet import Fleet
from tests.vm.replay import Replay, needs_machine

FAILURES = Path(__file__).with_name("test_failures.py")
REPLAY = pytest.StashKey[Replay]()


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    session.stash[REPLAY] = Replay(session)
    session.config.pluginmanager.register(session.stash[REPLAY])
    # machines that fail, which mostly wait, do so beside those of the checks
    items.sort(key=lambda item: item.path != FAILURES)
    reason = host.reason_without()
    for item in items:
        # who asks for a proof that everything works must not get one that left this out
        if reason and needs_machine(item) and os.environ.get("CI") != "true":
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if replay := session.stash.get(REPLAY, None):
        replay.close()


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> Fleet:
    """The machines, which have started."""
    return request.session.stash[REPLAY].fleet()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Outside of the time limit of a test: machines take as long as they take, and have limits of their own."""
    if needs_machine(item) and not item.get_closest_marker("skip"):
        item.session.stash[REPLAY].prepare(item)
    return (yield)
