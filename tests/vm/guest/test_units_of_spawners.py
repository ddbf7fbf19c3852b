"""A boot of a migrated host: the spawner's unit and spawnd start together.

`test_systemd_aliases.py` migrates its units, before spawnd is started for the reboot. The name of this file puts its
checks last, before and after the reboot.
"""

from __future__ import annotations

import os

import pytest

from tests.daemon import wait_until
from tests.vm.guest import old_daemons
from tests.vm.guest.installed import PATIENCE, PAUSE, clean_up, shipped, state
from tests.vm.guest.old_daemons import ANSWER, DEFINITION, SOCKET, SPAWNER

pytestmark = pytest.mark.skipif("MACHINE" not in os.environ, reason="runs in a machine that the tests have booted")


def test_the_accessory_is_defined_for_the_next_boot() -> None:
    """Last, because `define` sets all other definitions aside."""
    DEFINITION.write_text(shipped("accessory"))
    ANSWER.unlink(missing_ok=True)


@pytest.mark.boot(2)
def test_the_spawner_has_got_spawnd_at_boot() -> None:
    try:
        wait_until(lambda: state(SPAWNER) == "active", "a spawner that has asked", PATIENCE, PAUSE)
        assert ANSWER.read_text().strip() == "spawnd"
        assert state(SOCKET) == "inactive"
    finally:
        clean_up()
        DEFINITION.unlink(missing_ok=True)
        old_daemons.remove()
