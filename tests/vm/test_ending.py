from __future__ import annotations

import pytest

from tests.vm.fleet import Fleet
from tests.vm.suites import SUITES


@pytest.mark.parametrize("suite", SUITES)
def test_the_machine_powers_off(fleet: Fleet, suite: str) -> None:
    """Which takes that nothing in it, spawnd among the rest, holds up its shutdown."""
    fleet.wait_end(suite)
