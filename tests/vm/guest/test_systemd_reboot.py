"""The fate of services at a reboot of the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.daemon import wait_until
from tests.vm.guest.installed import (
    PATIENCE,
    PAUSE,
    UNIT,
    clean_up,
    define,
    main_pid,
    run,
    state,
    wait_running,
    witness,
)

pytestmark = pytest.mark.skipif("MACHINE" not in os.environ, reason="runs in a machine that the tests have booted")

STOPPED_BY = Path("/var/lib/checks-stopped-by")


def test_it_is_enabled_for_the_next_boot() -> None:
    """Makes what the checks after the reboot look at; `second` is up, and takes its time to stop, before `first`."""
    clean_up()
    for name in ("first", "second"):
        Path(f"{STOPPED_BY}-{name}").unlink(missing_ok=True)
    first = witness(Path(f"{STOPPED_BY}-first"), 0.5)
    second = witness(Path(f"{STOPPED_BY}-second"), 3)
    define(f'first = {{ {first} }}\nsecond = {{ {second}, depends = {{ "first" }} }}')
    run("systemctl", "enable", "--now", UNIT)
    wait_running("second")
    Path(f"{STOPPED_BY}-spawnd").write_text(str(main_pid()))


@pytest.mark.boot(2)
def test_it_has_started_at_boot() -> None:
    wait_until(lambda: state() == "active", "an active spawnd", PATIENCE, PAUSE)
    wait_running("second")


@pytest.mark.boot(2)
def test_the_reboot_has_stopped_services_in_order_and_through_spawnd() -> None:
    spawnd = int(Path(f"{STOPPED_BY}-spawnd").read_text())
    first, second = (Path(f"{STOPPED_BY}-{name}").read_text().split() for name in ("first", "second"))
    assert (int(first[0]), int(second[0])) == (spawnd, spawnd)
    assert float(second[2]) <= float(first[1]), "what depends on another stops first"
