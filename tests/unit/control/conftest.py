from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from supervisor.definitions.service import Descriptor, Service
from supervisor.lifecycle.life import State
from tests.unit.control.bench import Bench
from tests.unit.control.fake_service import FakeService, MakeService


@pytest.fixture
def folder() -> Iterator[str]:
    """A folder with a short name, for sockets, that other users can enter."""
    with tempfile.TemporaryDirectory(prefix="ctl") as path:
        os.chmod(path, 0o755)
        yield path


@pytest.fixture
def bench(folder: str) -> Iterator[Bench]:
    """A server with its fake core; afterwards no descriptor and no file is left."""
    before = set(os.listdir("/proc/self/fd"))
    bench = Bench(folder)
    yield bench
    bench.close()
    assert bench.errors == []
    assert not bench.core.observers
    assert os.listdir(folder) == []
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def path(folder: str) -> Iterator[str]:
    """Where the service is to listen; removed in the end."""
    path = os.path.join(folder, "web")
    yield path
    if os.path.exists(path):
        os.unlink(path)


@pytest.fixture
def service(bench: Bench, path: str) -> Iterator[MakeService]:
    """Have `web` listen on its control socket, in state running; `mute` has none."""
    control = Descriptor("stream", name="control", path=path)
    bench.define(Service("web", control=True, fd=(control,)), Service("mute"))
    made = []

    def make(backlog: int = 16) -> FakeService:
        bench.core.start(["web"])
        bench.run_until(lambda: bench.core.units["web"].life.state is State.RUNNING)
        made.append(FakeService(bench, path, backlog))
        return made[-1]

    yield make
    for one in made:
        one.close()
