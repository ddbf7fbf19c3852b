from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import workers
from tests.unit.definitions.loading import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _accessory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker `accessory`, which definitions may name."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "accessory").mkdir()
    for name in ("__init__.py", "main.py"):
        (folder / "accessory" / name).touch()
    place = os.fspath(folder)
    workers.__path__.append(place)
    yield
    workers.__path__.remove(place)
    sys.modules.pop("workers.accessory", None)
