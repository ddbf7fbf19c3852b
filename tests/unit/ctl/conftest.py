from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator

import pytest

from supervisor.ctl.main import main
from tests.unit.control.fake_core import FakeCore
from tests.unit.ctl.fake_supervisor import FakeSupervisor, SetUp


@pytest.fixture
def path() -> Iterator[str]:
    """Where the control socket is to be, in a folder with a short name that other users can enter."""
    with tempfile.TemporaryDirectory(prefix="ctl") as folder:
        os.chmod(folder, 0o755)
        yield os.path.join(folder, "control")


def nothing(core: FakeCore) -> None:
    pass


@pytest.fixture
def supervisors() -> Iterator[list[FakeSupervisor]]:
    """Those that run; they end with the test."""
    running: list[FakeSupervisor] = []
    yield running
    for supervisor in running:
        supervisor.close()


@pytest.fixture
def supervise(path: str, supervisors: list[FakeSupervisor]) -> Callable[..., None]:
    """Start a fake supervisor, with its core prepared in its process."""

    def start(set_up: SetUp = nothing) -> None:
        supervisors.append(FakeSupervisor(path, set_up))

    return start


@pytest.fixture
def spawnctl(path: str) -> Callable[..., int]:
    """Run spawnctl in this process: the exit code."""
    return lambda *arguments: main(["--socket", path, *arguments])
