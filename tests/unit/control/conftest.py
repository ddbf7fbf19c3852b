from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from tests.unit.control.bench import Bench


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
