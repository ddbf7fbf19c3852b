"""Where a program has failed and nobody keeps what it says, every place that tells of the failure says so."""

from __future__ import annotations

import pytest

from tests.daemon import Daemon
from tests.integration.conftest import Start

HINT = "its output is not kept: add `stderr = log()`"
FAILS = """exec = "/bin/sh", arg = { "-c", "echo no config >&2; exit 3" }, ready = "notify", start_limit = 2,
  backoff = { first = 0.05 }"""


def places(daemon: Daemon, name: str) -> dict[str, str]:
    """Return the text of each place about a service that has failed."""
    daemon.wait_state(name, "failed")
    start = daemon.ctl("start", name)
    daemon.wait_state(name, "failed")  # `start` answers at the first failure, the second start may be under way
    return {
        "why": daemon.ctl("why", name).stdout,
        "status": daemon.ctl("status", name).stdout,
        "list": str(daemon.services()[name]["reason"]),
        "start": start.stdout + start.stderr,
        "log": daemon.log(),
    }


def test_every_place_says_how_to_keep_it(spawnd: Start) -> None:
    daemon = spawnd(f"web = {{ {FAILS} }}")
    for place, text in places(daemon, "web").items():
        assert HINT in text, place
    # for each failure it would be noise
    assert daemon.log().count(HINT) == 2 * len([line for line in daemon.log().splitlines() if "web: failed" in line])


@pytest.mark.parametrize(
    "output", ["stderr = log()", "stdout = log(), stderr = log()", 'stderr = file("/dev/null", "w")']
)
def test_nothing_is_said_where_it_is_kept_or_thrown_away_on_purpose(spawnd: Start, output: str) -> None:
    daemon = spawnd(f"web = {{ {FAILS}, {output} }}")
    for place, text in places(daemon, "web").items():
        assert "is not kept" not in text, place


def test_of_a_program_that_was_not_executed_there_is_nothing_to_keep(spawnd: Start) -> None:
    daemon = spawnd('web = { exec = "/nowhere/web", start_limit = 1 }')
    for place, text in places(daemon, "web").items():
        assert "is not kept" not in text, place


def test_a_service_that_came_back_tells_why_it_fell_without_a_word(spawnd: Start) -> None:
    daemon = spawnd('web = { exec = "/bin/sleep", arg = { "100000" }, healthy_after = 0 }')
    pid = daemon.wait_running("web")
    daemon.ctl("signal", "SEGV", "web")
    daemon.wait_running("web", other_than=pid)
    assert f"To do: {HINT}" in daemon.ctl("why", "web").stdout
