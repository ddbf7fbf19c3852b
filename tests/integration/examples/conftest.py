"""The examples in a folder that every user can enter, and programs that end with their test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.examples.program import SHIPPED


@pytest.fixture
def examples() -> Iterator[Path]:
    """A copy of `conf/examples/`: a checkout may be where user nobody cannot go."""
    folder = Path(tempfile.mkdtemp(prefix="examples-"))
    try:
        folder.chmod(0o755)
        yield shutil.copytree(SHIPPED, folder / "examples")
    finally:
        shutil.rmtree(folder)
