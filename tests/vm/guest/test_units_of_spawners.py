"""A boot of a migrated host: the spawner's unit and spawnd start together.

The name of this file puts its first check last before the reboot, so that no other check takes away what it leaves.
"""

from __future__ import annotations

import os

import pytest

from tests.daemon import wait_until
from tests.vm.guest import old_daemons
from tests.vm.guest.installed import DEFINITIONS, PATIENCE, PAUSE, clean_up, run, shipped, state
from tests.vm.guest.old_daemons import ANSWER, SOCKET, SPAWNER, steps

pytestmark = pytest.mark.skipif("MACHINE" not in os.environ, reason="runs in a machine that the tests have booted")

DEFINITION = DEFINITIONS.with_name("accessory.lua")


def test_a_migrated_host_is_ready_for_the_next_boot() -> None:
    text = shipped("accessory")
    old_daemons.install()
    for number in "345":
        commands = steps()[number].replace("SPAWNER.service", SPAWNER)
        run("sh", "-c", commands.replace("enable --now spawnd", "enable spawnd"))
    DEFINITION.write_text(text)
    ANSWER.unlink(missing_ok=True)
    run("systemctl", "enable", SPAWNER)


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
