"""Each method over a real socket, against the fake core."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from itertools import count

import pytest

from supervisor import __version__
from supervisor.control.orders import iso_8601
from supervisor.definitions.service import Descriptor, Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import Cause, Ended, Life, State, Then
from supervisor.lifecycle.transaction import Outcome
from supervisor.process.paths import Sight
from tests.unit.control.bench import Bench
from tests.unit.control.fake_core import EPOCH, FakeUnit


def test_version(bench: Bench) -> None:
    assert bench.call("io.spawnd.GetVersion")["parameters"]["version"] == __version__


def test_list_has_every_service_in_order(bench: Bench) -> None:
    rows = bench.call("io.spawnd.List")["parameters"]["services"]
    assert [row["name"] for row in rows] == ["qotd", "tftp", "web"]
    assert rows[0]["state"] == "stopped"
    assert rows[0]["pid"] is None
    assert rows[0]["uptime_s"] is None
    assert rows[0]["reason"] == "never started"


def test_list_of_one_that_runs(bench: Bench) -> None:
    core = bench.core
    core.start(["tftp"])
    bench.run_until(lambda: core.units["tftp"].life.state is State.RUNNING)
    core.units["tftp"].memory = 4096
    core.units["tftp"].cpu = 1.5
    (row,) = bench.call("io.spawnd.List", names=["t*"])["parameters"]["services"]
    assert row["pid"] == core.units["tftp"].pid
    assert row["uptime_s"] >= 0
    assert row["memory_bytes"] == 4096
    assert row["cpu_s"] == 1.5
    assert row["since"] == iso_8601(core.unix_time(core.units["tftp"].life.since))


def test_list_tells_what_is_internal(bench: Bench) -> None:
    bench.core.units["log"] = FakeUnit(Service("log"), 0.0, internal=True)
    rows = bench.call("io.spawnd.List")["parameters"]["services"]
    assert [row["name"] for row in rows if row["internal"]] == ["log"]
    rows = bench.call("io.spawnd.List", names=["all"])["parameters"]["services"]
    assert [row["name"] for row in rows] == ["qotd", "tftp", "web"]


def test_status_of_one_in_backoff(bench: Bench) -> None:
    core = bench.define(Service("web", file="/a.lua", line=7, depends=("db",)), Service("db"))
    now = bench.clock()
    core.units["web"].life = Life(State.BACKOFF, now, "exited with status 1", deadline=now + 9, failures=3)
    core.units["web"].last_exit = "exited with status 1"
    core.units["web"].disconnected = "2 clients of stream /run/x"
    (row,) = bench.call("io.spawnd.Status", names=["web"])["parameters"]["services"]
    assert (row["file"], row["line"], row["failures"], row["depends"]) == ("/a.lua", 7, 3, ["db"])
    assert 0 < row["next_start_s"] <= 9
    assert row["descriptors"] == 5
    assert row["last_exit"] == "exited with status 1"
    assert row["disconnected"] == "2 clients of stream /run/x"


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


def in_a_row(bench: Bench) -> Bench:
    """web needs app, which needs db, and all run; idle needs db as well, and does not."""
    needs = {"app": "db", "web": "app", "idle": "db"}
    core = bench.define(Service("db"), *(Service(name, depends=(other,)) for name, other in needs.items()))
    core.start(["web"])
    bench.run_until(lambda: core.units["web"].life.state is State.RUNNING)
    return bench


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


def test_status_asks_those_that_say_more(bench: Bench) -> None:
    core = bench.define(
        Service("a", functions=("status",)), Service("b", functions=("status",)), Service("c", functions=("status",))
    )
    for name in ("a", "b"):
        core.units[name].life = Life(State.RUNNING, bench.clock())
    core.plans["b"] = "fails"
    core.units["a"].status_text = "ready"
    rows = bench.call("io.spawnd.Status", names=["all"])["parameters"]["services"]
    assert [row["status_text"] for row in rows] == ["ready; 42 rules", "status failed: no", ""]
    assert [asked for asked in core.asked if asked[0] == "ask_status"] == [("ask_status", "a"), ("ask_status", "b")]


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


def test_fds(bench: Bench) -> None:
    rows = bench.call("io.spawnd.Fds", name="web")["parameters"]["descriptors"]
    assert [row["number"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[3] == {"number": 3, "name": "", "what": "udp 127.0.0.1:69", "stored": False}
    assert rows[4]["stored"] is True
    bench.core.sights = {0: Sight.DELETED, 3: Sight.TAKEN, 4: Sight.REPLACED}
    rows = bench.call("io.spawnd.Fds", name="web")["parameters"]["descriptors"]
    assert [row["what"] for row in rows] == [
        "file /dev/null (deleted)", "file /dev/null", "file /dev/null", "udp 127.0.0.1:69 (replaced)", "socket:[1]",
    ]  # fmt: skip
    assert bench.call("io.spawnd.Fds", name="w*")["error"] == "io.spawnd.NoSuchService"


def test_reopen(bench: Bench) -> None:
    bench.define(Service("web"), Service("db"), Service("none"))
    bench.core.reopened = {"web": Outcome(False, "it was moved elsewhere"), "db": Outcome(True, "reopened /x")}
    client = bench.connect()
    client.call("io.spawnd.Reopen", names=["all"])  # of a pattern, those that write to files
    assert client.results() == {
        "web": (False, "stopped", "it was moved elsewhere"), "db": (True, "stopped", "reopened /x"),
    }  # fmt: skip


def test_logs(bench: Bench) -> None:
    nothing = {"journal": False, "lines": [], "lost": 0, "partial": False}
    assert bench.call("io.spawnd.Logs", name="web")["parameters"] == nothing
    bench.core.write("web", b"one\ntwo\r\nthree\n")
    assert bench.call("io.spawnd.Logs", name="web", count=2)["parameters"] == nothing | {"lines": ["two", "three"]}
    assert bench.call("io.spawnd.Logs", name="web", count=0)["parameters"] == nothing
    bench.core.write("web", b"fo")
    reply = bench.call("io.spawnd.Logs", name="web", count=1)["parameters"]
    assert reply == nothing | {"lines": ["fo"], "partial": True}
    bench.core.journal = True
    assert bench.call("io.spawnd.Logs", name="web")["parameters"] == nothing | {"journal": True}
    assert bench.call("io.spawnd.Logs", name="web", count=-1)["parameters"] == {"parameter": "count"}
    assert bench.call("io.spawnd.Logs", name="nope")["error"] == "io.spawnd.NoSuchService"


def test_logs_of_one_that_has_none(bench: Bench) -> None:
    bench.define(Service("mute"))
    assert bench.call("io.spawnd.Logs", name="mute") == {"error": "io.spawnd.NoLog", "parameters": {"name": "mute"}}


def test_why_of_one_whose_dependency_has_failed(bench: Bench) -> None:
    core = bench.define(
        Service("web", depends=("app",)), Service("app", depends=("db",)), Service("db", ready="notify", start_limit=3)
    )
    core.write("db", b"1\n2\n3\n4\n5\nno space left\n")
    core.start(["web"])
    bench.run_until(lambda: core.units["db"].life.state is State.STARTING)
    core.units["db"].ended = Ended(status=28)
    core.fail_for_good("db", "exited with status 28")
    reply = bench.call("io.spawnd.Why", name="web")["parameters"]
    assert reply["answer"] == (
        "web is not running: it needs app, which needs db, which has failed: its process exited with status 28; "
        "given up after 3 failures in a row"
    )
    assert (reply["kind"], reply["root"], reply["last_restart"]) == ("exit", "db", None)
    assert reply["hint"] == (
        "its output is not kept: add `stderr = log()`; fix that, then run `spawnctl start db`"
    )
    assert reply["lines"] == ["2", "3", "4", "5", "no space left"]
    assert [(link["name"], link["kind"], link["other"], link["text"]) for link in reply["chain"][:2]] == [
        ("web", "dependency", "app", "it needs app"),
        ("app", "dependency", "db", "it needs db"),
    ]
    assert reply["chain"][2] | {"since": "", "state_s": 0.0} == {
        "name": "db",
        "kind": "exit",
        "other": None,
        "text": "its process exited with status 28; given up after 3 failures in a row",
        "state": "failed",
        "since": "",
        "state_s": 0.0,
        "pid": None,
        "exit_status": 28,
        "signal": None,
        "step": None,
        "path": None,
        "errno": None,
        "failures": 3,
        "start_limit": 3,
        "next_start_s": None,
        "left_s": None,
    }


def test_why_of_one_that_waits_for_its_next_try(bench: Bench) -> None:
    now = bench.clock()
    unit = bench.core.units["web"]
    unit.life = Life(State.BACKOFF, now, "", Cause.EXIT, deadline=now + 9, failures=3)
    unit.ended = Ended.of_step("exec", "/usr/bin/web", 2, "No such file or directory")
    reply = bench.call("io.spawnd.Why", name="web")["parameters"]
    (link,) = reply["chain"]
    assert (reply["kind"], link["step"], link["path"], link["errno"]) == ("setup", "exec", "/usr/bin/web", 2)
    assert 0 < link["next_start_s"] <= 9
    assert link["left_s"] is None


def test_why_of_one_that_runs(bench: Bench) -> None:
    core = bench.core
    core.start(["web"])
    bench.run_until(lambda: core.units["web"].life.state is State.RUNNING)
    unit = core.units["web"]
    reply = bench.call("io.spawnd.Why", name="web")["parameters"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(core.unix_time(unit.life.since)))
    assert reply["answer"] == f"web has been running since {since}"
    assert (reply["kind"], reply["last_restart"], reply["hint"]) == ("running", None, "")
    assert reply["chain"][0]["pid"] == unit.pid
    unit.life = unit.life._replace(restarts=2, cause=Cause.EXIT)
    unit.ended = Ended(signum=9, signal="KILL", out_of_memory=True)
    reply = bench.call("io.spawnd.Why", name="web")["parameters"]
    assert reply["last_restart"] == "out_of_memory"
    assert reply["chain"][0]["signal"] == 9
    assert "restarted 2 times, the last time because it ran out of memory" in reply["answer"]


def test_why_where_the_output_is_elsewhere(bench: Bench) -> None:
    bench.core.journal = True
    reply = bench.call("io.spawnd.Why", name="web")["parameters"]
    assert (reply["journal"], reply["lines"]) == (True, [])
    bench.core.units["web"].life = Life(State.FAILED, bench.clock(), "", Cause.EXIT, failures=1)
    bench.core.units["web"].service = Service("web", stderr=Descriptor("log"))
    reply = bench.call("io.spawnd.Why", name="web")["parameters"]
    assert reply["hint"].startswith("`spawnctl logs web` shows what the journal has of it; ")
    core = bench.define(Service("mute", depends=("gone",)))
    reply = bench.call("io.spawnd.Why", name="mute")["parameters"]
    assert (reply["journal"], reply["lines"]) == (False, [])
    core.journal = True
    core.units["mute"].life = Life(State.WAITING, bench.clock())
    reply = bench.call("io.spawnd.Why", name="mute")["parameters"]
    assert (reply["root"], reply["kind"], reply["journal"]) == ("gone", "undefined", False)
    assert bench.call("io.spawnd.Why", name="m*")["error"] == "io.spawnd.NoSuchService"


def test_show(bench: Bench) -> None:
    lines = {"exec": 4, "umask": 5, "env_file": 6}
    service = Service(
        "web", file="/etc/web.lua", line=3, lines=lines, exec="/web", umask=0o022, env_file=("/etc/secret",)
    )
    core = bench.define(service)
    reply = bench.call("io.spawnd.Show", name="web")["parameters"]
    settings = {setting["key"]: setting for setting in reply["settings"]}
    assert (reply["name"], reply["file"], reply["line"], reply["pending"]) == ("web", "/etc/web.lua", 3, None)
    assert settings["umask"] == {"key": "umask", "value": '"----w--w-"', "file": "/etc/web.lua", "line": 5}
    assert settings["env_file"]["value"] == '{ "/etc/secret" }'
    assert settings["cwd"] == {"key": "cwd", "value": '"/"', "file": None, "line": None}
    core.units["web"].next_service = replace(service, cwd="/srv", lines={**lines, "cwd": 7})
    reply = bench.call("io.spawnd.Show", name="web")["parameters"]
    assert reply["pending"] == [{"key": "cwd", "value": '"/srv"', "file": "/etc/web.lua", "line": 7}]
    core.units["web"].next_service = service
    assert bench.call("io.spawnd.Show", name="web")["parameters"]["pending"] == []
    assert bench.call("io.spawnd.Show", name="w*")["error"] == "io.spawnd.NoSuchService"


def test_times_of_a_graph_are_by_one_look_at_the_clocks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    core = in_a_row(bench).core
    for name in ("db", "app"):
        core.units[name].life = core.units[name].life._replace(began=1.0, came_up=1.0)
    drift = count()
    monkeypatch.setattr(core, "unix_time", lambda monotonic: EPOCH + monotonic - next(drift))
    nodes = bench.call("io.spawnd.Graph", names=["db"])["parameters"]["nodes"]
    assert len({node[key] for node in nodes for key in ("began", "came_up") if node["name"] in ("db", "app")}) == 1


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
