"""Each method that does something, over a real socket, against the fake core; `test_views.py` has those that look."""

from __future__ import annotations

import os

import pytest

from supervisor.definitions.service import Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import State, Then
from supervisor.lifecycle.transaction import Outcome
from tests.unit.control.bench import Bench, in_a_row


@pytest.mark.parametrize("method", ["Status", "Start", "Stop", "Restart", "Reload", "Reset"])
def test_names_that_mean_nothing(bench: Bench, method: str) -> None:
    reply = bench.call(f"io.spawnd.{method}", names=["web", "nope"])
    assert reply == {"error": "io.spawnd.NoSuchService", "parameters": {"name": "nope", "suggestion": None}}
    reply = bench.call(f"io.spawnd.{method}", names=["qotd", "wbe", "*"])
    assert reply == {"error": "io.spawnd.NoSuchService", "parameters": {"name": "wbe", "suggestion": "web"}}
    assert bench.core.asked == []
    reply = bench.call(f"io.spawnd.{method}", names=[])
    assert reply == {"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": "names"}}


@pytest.mark.parametrize("method", ["Why", "Show", "Fds", "Logs", "Call", "Kill"])
def test_one_name_that_means_nothing(bench: Bench, method: str) -> None:
    more = {"Call": {"method": "a.b.C"}, "Kill": {"session": "1"}}.get(method, {})
    for name, suggestion in (("wbe", "web"), ("nope", None), ("we*", None)):
        parameters = bench.call(f"io.spawnd.{method}", name=name, **more)["parameters"]
        assert parameters == {"name": name, "suggestion": suggestion}


def test_start_waits_until_it_runs(bench: Bench) -> None:
    client = bench.connect()
    client.call("io.spawnd.Start", names=["web", "qotd"])
    assert client.results() == {"web": (True, "running", ""), "qotd": (True, "running", "")}
    assert bench.core.asked == [("start", ["web", "qotd"])]
    client.call("io.spawnd.Start", names=["web"])
    assert client.results() == {"web": (True, "running", "")}


def test_orders_may_be_about_sessions(bench: Bench) -> None:
    client = bench.connect()
    client.call("io.spawnd.Restart", names=["web"], sessions=True)
    client.results()
    client.call("io.spawnd.Stop", names=["web"], keep_sessions=True)
    client.results()
    assert bench.core.asked == [("restart with sessions", ["web"]), ("stop without sessions", ["web"])]


def test_start_without_waiting(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.call("io.spawnd.Start", names=["web"], no_wait=True)
    assert client.results() == {"web": (True, "waiting", "start requested")}


def test_start_of_one_that_fails(bench: Bench) -> None:
    bench.core.plans["web"] = "fails"
    client = bench.connect()
    client.call("io.spawnd.Start", names=["web", "qotd"])
    assert client.results() == {
        "web": (False, "backoff", "exited with status 1; its output is not kept: add `stderr = log()`"),
        "qotd": (True, "running", ""),
    }


def test_start_of_a_task_waits_for_its_end(bench: Bench) -> None:
    bench.define(Service("job", task=True))
    client = bench.connect()
    client.call("io.spawnd.Start", names=["job"])
    assert client.results() == {"job": (True, "done", "")}


def test_start_waits_for_a_dependency(bench: Bench) -> None:
    core = bench.define(Service("web", depends=("db",)), Service("db", ready="notify"))
    client = bench.connect()
    client.call("io.spawnd.Start", names=["web"])
    bench.run_until(lambda: core.units["web"].waits == "needs db, which is starting")
    assert client.is_silent()
    core.event("db", machine.ready)
    assert client.results() == {"web": (True, "running", "")}


def test_start_ends_when_its_dependency_has_failed_for_good(bench: Bench) -> None:
    core = bench.define(
        Service("web", depends=("app",)), Service("app", depends=("db",)), Service("db", ready="notify")
    )
    client = bench.connect()
    client.call("io.spawnd.Start", names=["web"])
    bench.run_until(lambda: core.units["db"].life.state is State.STARTING)
    core.fail_for_good("db", "exited with status 1")
    (result,) = client.results().values()
    assert result[:2] == (False, "waiting")
    assert result[2].startswith("needs app, which needs db, which has failed (exited with status 1")


def test_start_ends_when_somebody_stops_it(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client, other = bench.connect(), bench.connect()
    client.call("io.spawnd.Start", names=["web"])
    bench.run_until(lambda: bench.core.units["web"].life.state is State.STARTING)
    other.call("io.spawnd.Stop", names=["web"])
    assert other.results() == {"web": (True, "stopped", "")}
    assert client.results() == {"web": (False, "stopped", "stop requested")}


def test_start_ends_when_the_service_is_no_longer_defined(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.call("io.spawnd.Start", names=["web", "tftp"])
    bench.run_until(lambda: bench.core.units["tftp"].life.state is State.RUNNING)
    del bench.core.units["web"]
    bench.core.event("tftp", machine.stop)  # something else comes to rest
    assert client.results()["web"] == (False, "stopped", "it is not defined any more")


def test_stop_of_one_that_hesitates(bench: Bench) -> None:
    core = bench.core
    core.start(["web"])
    bench.run_until(lambda: core.units["web"].life.state is State.RUNNING)
    core.plans["web"] = "stubborn"
    client = bench.connect()
    client.call("io.spawnd.Stop", names=["web", "qotd"])
    bench.settle()
    assert client.is_silent()
    core.event("web", machine.exited, True, "killed by KILL", 0.0)
    assert client.results() == {"web": (True, "stopped", ""), "qotd": (True, "stopped", "")}


def test_a_stop_of_what_others_need_is_refused(bench: Bench) -> None:
    core = in_a_row(bench).core
    reply = bench.call("io.spawnd.Stop", names=["app", "db"])
    assert reply["error"] == "io.spawnd.Needed"
    assert reply["parameters"] == {"name": "app", "by": ["web"]}
    assert bench.call("io.spawnd.Stop", names=["db"])["parameters"] == {"name": "db", "by": ["app", "web"]}
    assert not [asked for asked in core.asked if asked[0] == "stop"]


def test_what_is_just_restarted_needs_others_as_before(bench: Bench) -> None:
    core = in_a_row(bench).core
    core.units["web"].life = core.units["web"].life._replace(state=State.STOPPING, then=Then.START)
    assert bench.call("io.spawnd.Stop", names=["app"])["parameters"] == {"name": "app", "by": ["web"]}


def test_with_cascade_the_others_go_too(bench: Bench) -> None:
    in_a_row(bench)
    results = bench.call("io.spawnd.Stop", names=["db"], cascade=True)["parameters"]["results"]
    assert [(row["name"], row["ok"], row["state"]) for row in results] == [
        ("app", True, "stopped"), ("web", True, "stopped"), ("db", True, "stopped")
    ]  # fmt: skip


def test_it_can_be_stopped_alone(bench: Bench) -> None:
    core = in_a_row(bench).core
    results = bench.call("io.spawnd.Stop", names=["db"], alone=True)["parameters"]["results"]
    assert [(row["name"], row["state"]) for row in results] == [("db", "stopped")]
    assert core.units["app"].life.state is State.RUNNING


def test_those_that_are_named_need_no_cascade(bench: Bench) -> None:
    in_a_row(bench)
    results = bench.call("io.spawnd.Stop", names=["web", "db", "app"])["parameters"]["results"]
    assert [row["name"] for row in results if row["ok"]] == ["web", "db", "app"]


def test_what_is_down_is_needed_by_nobody(bench: Bench) -> None:
    core = in_a_row(bench).core
    core.event("db", machine.exited, False, "gone", 0.0)
    assert core.units["db"].life.state is State.BACKOFF
    assert bench.call("io.spawnd.Stop", names=["db"])["parameters"]["results"][0]["state"] == "stopped"


def test_stop_ends_when_somebody_starts_it_again(bench: Bench) -> None:
    core = bench.core
    core.start(["web"])
    bench.run_until(lambda: core.units["web"].life.state is State.RUNNING)
    core.plans["web"] = "stubborn"
    client, other = bench.connect(), bench.connect()
    client.call("io.spawnd.Stop", names=["web"])
    bench.run_until(lambda: core.units["web"].life.state is State.STOPPING)
    other.call("io.spawnd.Start", names=["web"])
    bench.run_until(lambda: core.units["web"].life.then.value == "start")
    core.plans["web"] = "works"
    core.event("web", machine.exited, True, "killed by TERM", 0.0)
    assert client.results() == {"web": (False, "waiting", "it was started again meanwhile")}
    assert other.results() == {"web": (True, "running", "")}


def test_restart_waits_for_the_new_process(bench: Bench) -> None:
    core = bench.core
    core.start(["web"])
    bench.run_until(lambda: core.units["web"].life.state is State.RUNNING)
    client = bench.connect()
    client.call("io.spawnd.Restart", names=["web", "qotd"])
    assert client.results() == {"web": (True, "running", ""), "qotd": (True, "running", "")}
    assert core.units["web"].life.starts == 2


def test_reload(bench: Bench) -> None:
    bench.core.plans["web"] = "fails"
    client = bench.connect()
    client.call("io.spawnd.Reload", names=["web", "qotd"])
    assert client.results() == {"web": (False, "stopped", "it is not running"), "qotd": (True, "stopped", "")}
    assert bench.core.asked == [("reload", "web"), ("reload", "qotd")]


def test_reload_without_waiting(bench: Bench) -> None:
    bench.core.plans |= {"web": "hangs", "qotd": "fails"}
    client = bench.connect()
    client.call("io.spawnd.Reload", names=["web", "qotd"], no_wait=True)
    assert client.results() == {
        "web": (True, "stopped", "asked to reload"),
        "qotd": (False, "stopped", "it is not running"),
    }
    bench.core.reloads[0]("")  # comes too late to be told


def test_signal(bench: Bench) -> None:
    core = bench.core
    core.units["web"].pid = 77
    client = bench.connect()
    client.call("io.spawnd.Signal", names=["web", "qotd"], signal=12)
    assert client.results() == {"web": (True, "stopped", ""), "qotd": (False, "stopped", "it has no process")}
    assert core.asked == [("signal", ("web", 12)), ("signal", ("qotd", 12))]


@pytest.mark.parametrize(("signum", "name"), [(9, "KILL"), (32, "signal 32"), (35, "RTMIN+1")])
def test_the_log_names_the_signal_and_its_sender(
    bench: Bench, caplog: pytest.LogCaptureFixture, signum: int, name: str
) -> None:
    with caplog.at_level("INFO"):
        bench.call("io.spawnd.Signal", names=["web", "qotd"], signal=signum)
    assert f"signal {name} of web, qotd: asked for by uid {os.geteuid()}, pid {os.getpid()}" in caplog.text


@pytest.mark.parametrize("signum", [0, 65, -1, True, "TERM", 1.5, None, 10**30])
def test_signal_that_is_none(bench: Bench, signum: object) -> None:
    reply = bench.call("io.spawnd.Signal", names=["web"], signal=signum)
    assert reply["parameters"] == {"parameter": "signal"}
    assert bench.core.asked == []


def test_reset(bench: Bench) -> None:
    unit = bench.core.units["web"]
    unit.life = unit.life._replace(state=State.FAILED, failures=10)
    client = bench.connect()
    client.call("io.spawnd.Reset", names=["web"])
    assert client.results() == {"web": (True, "stopped", "")}
    assert unit.life.failures == 0


def test_reopen(bench: Bench) -> None:
    bench.define(Service("web"), Service("db"), Service("none"))
    bench.core.reopened = {"web": Outcome(False, "it was moved elsewhere"), "db": Outcome(True, "reopened /x")}
    client = bench.connect()
    client.call("io.spawnd.Reopen", names=["all"])  # of a pattern, those that write to files
    assert client.results() == {
        "web": (False, "stopped", "it was moved elsewhere"), "db": (True, "stopped", "reopened /x"),
    }  # fmt: skip


def test_shutdown_is_answered_first(bench: Bench) -> None:
    assert bench.call("io.spawnd.Shutdown") == {"parameters": {}}
    assert bench.core.asked == [("end", None)]


def test_check(bench: Bench) -> None:
    assert bench.call("io.spawnd.Check")["parameters"] == {"services": 3, "problems": [], "notices": []}
    bench.core.problems = ["/a.lua:1: bad"]
    assert bench.call("io.spawnd.Check")["parameters"] == {"services": 0, "problems": ["/a.lua:1: bad"], "notices": []}


@pytest.mark.parametrize(
    ("method", "parameters", "wrong"),
    [
        ("List", {"names": "web"}, "names"),
        ("List", {"names": ["web", 1]}, "names"),
        ("List", {"mames": ["web"]}, "mames"),
        ("Start", {}, "names"),
        ("Start", {"names": ["web"], "no_wait": 1}, "no_wait"),
        ("Fds", {}, "name"),
        ("Fds", {"name": ["web"]}, "name"),
        ("Check", {"quick": True}, "quick"),
        ("GetVersion", {"x": 1}, "x"),
    ],
)
def test_wrong_parameters(bench: Bench, method: str, parameters: dict[str, object], wrong: str) -> None:
    reply = bench.call(f"io.spawnd.{method}", **parameters)
    assert reply == {"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": wrong}}
    assert bench.core.asked == []


@pytest.mark.parametrize("method", ["", "List", "io.spawnd.", "io.spawnd.list", "io.spawnd.Nope", "org.varlink.x.Y"])
def test_unknown_methods(bench: Bench, method: str) -> None:
    assert bench.call(method) == {"error": "org.varlink.service.MethodNotFound", "parameters": {"method": method}}


def test_an_unexpected_error_is_answered(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    del bench.core.units["web"].__dict__["pid"]
    reply = bench.call("io.spawnd.List")
    assert reply["error"] == "io.spawnd.Failed"
    assert "unexpected error in io.spawnd.List" in caplog.text


@pytest.mark.parametrize("no_wait", [False, True])
def test_what_is_answered_has_been_written_down(bench: Bench, no_wait: bool) -> None:
    """Or a spawnd that is lost would have told what the next one does not know."""
    for method, state in (("Start", State.RUNNING), ("Restart", State.RUNNING), ("Stop", State.STOPPED)):
        reply = bench.call(f"io.spawnd.{method}", names=["web"], no_wait=no_wait)
        told = reply["parameters"]["results"][0]["state"]
        assert bench.core.settled["web"].value == told
        assert no_wait or told == state
