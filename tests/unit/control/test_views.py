"""Each method that looks and changes nothing, over a real socket, against the fake core."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count

import pytest

from supervisor import __version__
from supervisor.control.orders import iso_8601
from supervisor.definitions.service import Descriptor, Service
from supervisor.lifecycle.life import Cause, Ended, Life, State
from supervisor.process.paths import Sight
from tests.unit.control.bench import Bench, in_a_row
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
