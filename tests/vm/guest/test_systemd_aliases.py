"""The migration of a host, in preparation of its next boot: `test_units_of_spawners.py`."""

from __future__ import annotations

import os

import pytest

from tests.vm.guest import old_daemons
from tests.vm.guest.installed import clean_up, run
from tests.vm.guest.old_daemons import SPAWNER, steps

pytestmark = pytest.mark.skipif("MACHINE" not in os.environ, reason="runs in a machine that the tests have booted")


def test_the_units_are_ready_for_the_next_boot() -> None:
    """Like in the steps, spawnd does not run: systemd may forget a running service whose unit gets an alias."""
    clean_up()
    old_daemons.install()
    for number in "345":
        commands = steps()[number].replace("SPAWNER.service", SPAWNER)
        run("sh", "-c", commands.replace("enable --now spawnd", "enable spawnd"))
    run("systemctl", "enable", SPAWNER)
