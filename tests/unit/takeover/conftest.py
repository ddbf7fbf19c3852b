"""A loop for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from supervisor.loop.loop import Loop
from tests.unit.waiting import checked_loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    with checked_loop() as loop:
        yield loop
