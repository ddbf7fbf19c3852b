from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.workers.netns.space import fresh
from workers.network import stack  # noqa: F401 - pyroute2, once instead of in each child that needs it


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a namespace of this test; what has it in the end is removed."""
    with fresh() as found:
        yield found
