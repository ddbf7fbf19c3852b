"""A host with the C++ daemons and spawners that want their socket unit, before, during and after docs/migration.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.daemon import wait_until
from tests.vm.guest import old_daemons
from tests.vm.guest.installed import (
    DEFINITIONS,
    PATIENCE,
    PAUSE,
    SLICE,
    UNIT,
    UNITS,
    cgroup,
    clean_up,
    define,
    is_alive,
    main_pid,
    pids_in,
    run,
    shipped,
    show,
    state,
    wait_running,
)
from tests.vm.guest.old_daemons import ACCESSORY, ANSWER, REAPER, SOCKET, SPAWNER, ask, steps

pytestmark = pytest.mark.skipif("MACHINE" not in os.environ, reason="runs in a machine that the tests have booted")

NETNS = 'netns.customer1 = { addresses = "192.0.2.2/24", host_addresses = "192.0.2.1/24" }\n'
OLD = (SOCKET, ACCESSORY, REAPER)


@contextmanager
def packages() -> Iterator[None]:
    """With the packages of the C++ daemons, and definitions of the workers; spawnd does not run."""
    clean_up()
    define(shipped("accessory") + shipped("reaper") + NETNS)
    with old_daemons.old_daemons():
        yield


@pytest.fixture
def own_host() -> Iterator[None]:
    """A host with these packages for one check."""
    with packages():
        yield


@pytest.fixture(scope="module")
def host() -> Iterator[None]:
    """A host with these packages for all other checks, as installing and removing them takes longer than most."""
    with packages():
        yield


@pytest.fixture
def old(host: None) -> Iterator[None]:
    """This host before the steps; nothing runs."""
    yield
    stop_all()


@pytest.fixture(scope="module")
def migrated(host: None) -> None:
    """This host after the steps.  It stays so: checks of what was before come first."""
    for number in "34":
        run("sh", "-c", steps()[number])
    stop_all()


@pytest.fixture
def moved(migrated: None) -> Iterator[None]:
    """A host that has been migrated; nothing runs."""
    yield
    stop_all()


def stop_all() -> None:
    text = DEFINITIONS.read_text()
    old_daemons.stop()
    DEFINITIONS.write_text(text)


def start_spawner() -> str:
    """The answer that a spawner gets when its unit starts."""
    ANSWER.unlink(missing_ok=True)
    run("systemctl", "start", SPAWNER)
    return ANSWER.read_text().strip()


def stop_spawner() -> None:
    run("systemctl", "stop", SPAWNER)


# the steps themselves


@pytest.mark.usefixtures("own_host")
def test_every_step_on_a_host_that_runs_and_the_way_back() -> None:
    run("systemctl", "enable", "--now", SOCKET, ACCESSORY, REAPER, "cm4all-spawn-netns@customer1.service")
    run("systemctl", "enable", SPAWNER)
    assert start_spawner() == "old"
    wait_until(lambda: len(old_pids()) == 2, "the old accessory and its child", PATIENCE, PAUSE)
    (daemon, *_), inode = old_pids(), run("stat", "-Lc", "%i", "/run/netns/customer1")
    child = next(pid for pid in old_pids() if pid != daemon)
    commands = {key: text.replace("SPAWNER.service", SPAWNER) for key, text in steps().items()}
    assert set(commands) >= {"1", "2", "3", "4", "5", "6", "7", "The way back"}

    assert "OK: 3 services" in run("sh", "-c", commands["1"])
    assert SPAWNER in run("sh", "-c", commands["2"])
    run("sh", "-c", commands["3"])
    run("sh", "-c", commands["4"])
    assert [state(name) for name in (UNIT, SOCKET)] == ["active", "inactive"]
    assert (is_alive(daemon), is_alive(child)) == (False, True)
    assert cgroup(child) == "/system.slice/cm4all-spawn-inits.scope"
    assert cgroup(main_pid()) == f"/system.slice/{UNIT}"
    wait_running("netns@customer1")
    assert run("stat", "-Lc", "%i", "/run/netns/customer1") == inode
    run("sh", "-c", commands["5"])
    run("sh", "-c", commands["6"])
    run("systemctl", "start", "cm4all-spawn-netns@customer1.service")
    wait_running("accessory")
    wait_running("reaper")
    assert "cm4all-spawn" in run("sh", "-c", commands["7"])
    stop_spawner()
    assert (start_spawner(), ask(), state()) == ("spawnd", "spawnd", "active")

    run("sh", "-c", commands["The way back"].replace("NAME", "customer1"))
    assert [state(name) for name in (UNIT, *OLD)] == ["inactive", "active", "active", "active"]
    assert ask() == "old"
    stop_spawner()
    assert start_spawner() == "old"
    assert not (UNITS / ACCESSORY).exists()


def old_pids() -> list[int]:
    """The processes in the cgroup of the old accessory, the daemon first."""
    return sorted(pids_in(SLICE / ACCESSORY))


# before the steps: the unit alone


@pytest.mark.usefixtures("old")
def test_spawnd_takes_the_address_from_systemd_where_a_spawner_came_first() -> None:
    assert start_spawner() == "old"
    run("systemctl", "start", UNIT)
    assert [state(name) for name in (UNIT, *OLD)] == ["active", "inactive", "inactive", "inactive"]
    assert ask() == "spawnd"
    wait_running("accessory")


@pytest.mark.usefixtures("old")
def test_a_spawner_that_starts_after_spawnd_goes_back_to_the_old_daemon_and_hangs_nowhere() -> None:
    run("systemctl", "start", UNIT)
    assert ask() == "spawnd"
    assert start_spawner() == "old"
    assert [state(name) for name in (UNIT, SOCKET)] == ["inactive", "active"]


@pytest.mark.usefixtures("old")
def test_a_spawner_and_spawnd_in_one_transaction_hang_nowhere() -> None:
    run("systemctl", "start", UNIT, SPAWNER, check=False)  # one of them may lose, and its job be canceled
    answers = {"active": "spawnd", "inactive": "old"}
    wait_until(lambda: state() in answers and state(SOCKET) in answers, "the end of all jobs", PATIENCE, PAUSE)
    assert ask() == answers[state()]
    assert state(SOCKET) != state()


# after the steps


@pytest.mark.usefixtures("moved")
def test_after_the_steps_a_spawner_that_starts_after_spawnd_gets_spawnd() -> None:
    run("systemctl", "start", UNIT)
    pid = main_pid()
    assert start_spawner() == "spawnd"
    assert (main_pid(), state(), state(SOCKET)) == (pid, "active", "inactive")


@pytest.mark.usefixtures("moved")
def test_after_the_steps_a_spawner_that_starts_before_spawnd_is_refused_and_does_not_hang() -> None:
    assert start_spawner() == "ConnectionRefusedError"
    run("systemctl", "start", UNIT)
    assert (ask(), state(SPAWNER), state(SOCKET)) == ("spawnd", "active", "inactive")


@pytest.mark.usefixtures("moved")
def test_units_that_want_the_old_services_by_name_get_spawnd() -> None:
    for name in (ACCESSORY, REAPER):
        run("systemctl", "start", name)
        assert (state(), show("Id", name)) == ("active", UNIT)
    assert ask() == "spawnd"


@pytest.mark.usefixtures("moved")
def test_after_the_drop_in_a_spawner_starts_spawnd_and_waits_for_it() -> None:
    run("sh", "-c", steps()["5"].replace("SPAWNER.service", SPAWNER))
    assert start_spawner() == "spawnd"
    assert state() == "active"
    stop_spawner()
    stop_all()
    run("systemctl", "start", SPAWNER, UNIT)  # in one transaction
    assert (ANSWER.read_text().strip(), ask(), state()) == ("spawnd", "spawnd", "active")
