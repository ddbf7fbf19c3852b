"""The benchmarks as tests, with limits that a busy machine meets too: what breaks them is a mistake, not noise."""

from __future__ import annotations

import shutil

import pytest

from tests import fuse
from tests.bench import (
    control_clients,
    crash_loop,
    fleet,
    hostile,
    hung_start,
    journeys,
    loss,
    plan,
    reaper,
    reexec,
    restarts,
    sleep,
    start_up,
    under_load,
)
from tests.ports import free_port
from tests.postgres import server_programs
from tests.unit.process.requirements import needs_root

pytestmark = pytest.mark.bench


def test_a_hundred_services() -> None:
    result = fleet.measure(100, kills=20, settle=1.5, idle=5)
    assert result["all_up_s"] < 20
    assert result["up_cpu_s"] < 1.5
    assert result["pss_kb"] < 18 * 1024
    assert result["respawn_median_ms"] < 100
    assert result["idle_wakeups_per_s"] == 0
    assert result["descriptors_leaked"] == 0


def test_a_thousand_services() -> None:
    result = fleet.measure(1000, kills=3, settle=1.5, idle=5)
    assert result["all_up_s"] < 120
    assert result["up_cpu_s"] < 8
    assert result["pss_kb"] < 40 * 1024
    assert result["idle_cpu_percent"] < 0.1
    assert result["list_median_ms"] < 2000
    assert result["stop_s"] < 20


@pytest.mark.parametrize(("name", "program"), [("runit", "runsvdir"), ("s6", "s6-svscan")])
def test_a_comparison(name: str, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {name}")
    result = fleet.compare([name], 3, kills=1, settle=1.5, rounds=1)
    assert result["spawnd"]["respawn_median_ms"] < 100
    assert 0 < result[name]["respawn_median_ms"] < 10_000
    assert result[name]["all_up_s"] > 0


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_starts_that_hang_keep_spawnd_from_nothing() -> None:
    result = hung_start.measure(1)
    assert (result["hung_states"], result["local_states"]) == (["starting"], ["running"])
    assert result["hung_ms"]["max"] < 5000
    assert result["hung_ms"]["median"] < max(20, 5 * result["local_ms"]["median"])


def test_a_start_of_two_hundred_modules() -> None:
    result = start_up.measure(levels=10, width=20)
    assert result["all_up_s"] < 20
    assert result["all_cpu_s"] < 25


def test_a_start_of_a_chain_of_modules() -> None:
    assert start_up.measure(levels=100, width=1)["all_up_s"] < 20


def test_a_start_of_five_hundred_tasks() -> None:
    assert start_up.measure(levels=10, width=50, as_task=True)["all_up_s"] < 40


def test_a_plan_for_a_thousand_services() -> None:
    result = plan.measure(1000, changes=10, runs=3)
    assert result["plan_median_s"] < 5
    assert result["other_call_median_ms"] < 200
    assert result["apply_s"] < 15
    assert result["descriptors_more"] <= 0  # the fork server may have ended


def test_kills_under_load() -> None:
    result = under_load.measure(free_port(), seconds=7, every=1.5, rate=50)
    assert result["kills"] >= 3
    assert result["refused"] == 0
    assert result["lost"] <= result["kills"]
    assert result["answered"] >= result["clients"] - result["kills"]


def test_a_crash_loop_costs_next_to_nothing() -> None:
    result = crash_loop.measure(', backoff = { first = "100ms", max = "2s" }')
    assert (result["state"], result["starts"]) == ("failed", 10)
    assert result["cpu_percent"] < 3


def test_nothing_leaks_over_restarts() -> None:
    result = restarts.measure(60)
    assert result["last"]["descriptors"] == result["first"]["descriptors"]
    assert result["last"]["zombies"] == 0
    assert result["last"]["children"] == result["first"]["children"] == 1
    assert result["first"]["service_sees"] == result["last"]["service_sees"] == [0, 1, 2, 3, 4, 5]


def test_a_list_among_a_thousand_connections() -> None:
    result = control_clients.measure(200, idle=450, garbage=450, others=100, seconds=2, pause=0.02)
    assert result["connections"] > 750  # some garbage clients are always on their way back
    assert result["garbage_per_s"] > 100
    assert result["spawnctl_ms"]["median"] < max(1000, 4 * result["spawnctl_alone_ms"]["median"])
    assert result["list_ms"]["median"] < 500
    assert result["pss_after_kb"] < result["pss_before_kb"] + 24 * 1024
    assert result["log_lines"] == 0


def test_execs_under_load() -> None:
    result = reexec.measure(200, times=3, rate=100)
    assert (result["refused"], result["lost"], result["restarted"], result["probe_error"]) == (0, 0, 0, "")
    assert result["clients"] > 100
    assert result["control_away_median_ms"] < 3000
    assert result["last"]["descriptors"] <= result["first"]["descriptors"] + 2
    assert (result["last"]["children"], result["last"]["zombies"]) == (200, 0)
    assert result["last"]["pss_kb"] < 1.2 * result["first"]["pss_kb"]


def test_losses_under_load() -> None:
    result = loss.measure(200, losses=3, rate=100)
    assert (result["refused"], result["lost"], result["restarted"], result["run_twice"]) == (0, 0, 0, 0)
    assert result["clients"] > 50
    assert result["control_back_median_ms"] < 5000
    assert result["last"]["descriptors"] <= result["first"]["descriptors"] + 2


@needs_root
def test_losses_while_all_services_restart() -> None:
    result = loss.measure_restarting(10, losses=3)
    assert (result["run_twice"], result["unregistered"], result["left"]) == (0, 0, [])
    assert result["restarts"] >= 10


@needs_root
def test_the_reaper_misses_nothing_and_is_fast() -> None:
    arguments = "--count 100 --seconds 3 --watched 1000 --idle 2".split()
    result = reaper.measure(["burst", "steady", "fresh", "each", "watched"], reaper.parser().parse_args(arguments))
    assert result["burst"]["seconds"] < 5
    assert result["steady"]["missed"] == result["fresh"]["missed"] == 0
    assert result["steady"]["stay_median_ms"] < 1000
    assert result["each"]["cpu_us"] < 5000
    assert result["watched"]["left"] == 1000
    assert result["watched"]["rss_kb"] < 80 * 1024
    assert result["watched"]["descriptors_each"] < 0.01
    assert result["watched"]["idle_cpu_percent"] < 0.5


@needs_root
@pytest.mark.skipif(server_programs() is None, reason="needs a PostgreSQL server: make packages")
def test_a_script_that_inserts_each_cgroup() -> None:
    result = reaper.measure(["inserts"], reaper.parser().parse_args(["--inserts", "500"]))
    assert result["inserts"]["rows"] == 500
    assert result["inserts"]["rows_per_s"] > 20
    assert result["inserts"]["longest_call_ms"] < 2000


@needs_root
def test_attackers_hold_up_nobody_and_leave_nothing() -> None:
    """Descriptors that take long to close or to inspect delay their sender alone."""
    result = hostile.measure(2)
    for name in ("call_ms", "accessory_ms", "respawn_ms"):
        assert result[name]["median"] < 500, result
        assert result[name]["max"] < 5000, result
    before, after = result["before"], result["after"]
    assert after["threads"] == before["threads"] == 1, result
    assert after["descriptors"] <= before["descriptors"], result
    assert after["rss_kb"] < before["rss_kb"] + 4096, result


@needs_root
def test_the_files_that_a_journey_enters() -> None:
    """Each layer that only forwards makes one of these longer."""
    result = journeys.measure()
    assert result["stop"]["files"] <= 41
    assert result["restart"]["files"] <= 35
    assert result["ipc"]["files"] <= 14


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_clients_of_services_that_go_to_sleep_all_the_time() -> None:
    result = sleep.measure_cycles(5, rate=100, least=150)
    assert result["clients"] > 100
    assert result["starts"] > 50
    assert (result["refused"], result["lost"], result["failures"], result["descriptors_leaked"]) == (0, 0, 0, 0)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_sleeping_services() -> None:
    stopped, asleep, woken = sleep.measure_many(1000, seconds=5, wakes=20)
    assert asleep["wakeups"] == 0
    assert asleep["pss_kb"] < stopped["pss_kb"] + 2048
    for result in (stopped, asleep):
        assert result["apply_s"] < 5
        assert result["pss_after_apply_kb"] < result["pss_kb"] + 1024
    assert woken["first_byte_median_ms"] < 500
    flood = sleep.measure_flood(100)
    assert (flood["unanswered"], flood["descriptors_leaked"]) == (0, 0)
