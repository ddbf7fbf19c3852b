"""Fixtures for every test of a room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.closing import settle_all


@pytest.fixture(autouse=True)
def _no_children_left() -> Iterator[None]:
    """Children that have closed something are reaped."""
    yield
    settle_all()
