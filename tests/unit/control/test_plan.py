"""Plan, Apply and Graph over a real socket, against the fake core."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from supervisor.control.verbs import apply as apply_verb
from supervisor.definitions.service import Definitions, Descriptor, Service, Settings
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import State
from supervisor.linux.peers import Credentials
from supervisor.varlink.messages import Call
from supervisor.varlink.pending_call import PendingCall
from tests.unit.control.bench import Bench, encode_oneway
from tests.unit.control.fake_core import with_process
from tests.unit.control.test_introspection import SPAWND

DIGEST = "d1"
TFTP, WEB, QOTD = Service("tftp", exec="/t", file="/a.lua", line=1), Service("web", exec="/w"), Service("qotd")


def find(bench: Bench, *services: Service, settings: Settings | None = None, notices: Sequence[str] = ()) -> None:
    """Have the files say this from now on."""
    by_name = {service.name: with_process(service) for service in services}
    bench.core.files = Definitions(by_name, settings or Settings(), notices=tuple(notices), digest=DIGEST)


def start(bench: Bench, *names: str) -> None:
    bench.core.start(names)
    bench.run_until(lambda: all(bench.core.units[name].life.state is State.RUNNING for name in names))


def plan(bench: Bench, **parameters: object) -> dict[str, Any]:
    reply: dict[str, Any] = bench.call("io.spawnd.Plan", **parameters)["parameters"]
    SPAWND.check(reply, SPAWND.methods["Plan"][1])
    return reply


def apply(bench: Bench, **parameters: object) -> dict[str, Any]:
    reply: dict[str, Any] = bench.call("io.spawnd.Apply", **parameters)["parameters"]
    SPAWND.check(reply, SPAWND.methods["Apply"][1])
    return reply


def rows(reply: dict[str, Any]) -> dict[str, tuple[str, bool, str, str]]:
    return {row["name"]: (row["step"], row["ok"], row["state"], row["message"]) for row in reply["services"]}


def test_nothing_to_do(bench: Bench) -> None:
    bench.define(TFTP, WEB)
    find(bench, replace(TFTP, line=7), WEB, notices=["/a.lua:1: look"])
    assert plan(bench) == {
        "problems": [],
        "notices": ["/a.lua:1: look"],
        "digest": DIGEST,
        "defined": 2,
        "services": [],
        "settings": [],
    }
    assert apply(bench)["services"] == []


def test_a_plan_tells_each_key(bench: Bench) -> None:
    bench.define(TFTP, WEB)
    start(bench, "tftp")
    new = replace(TFTP, line=3, lines={"exec": 4, "stop_timeout": 5, "status": 6}, exec="/u", stop_timeout=60.0)
    find(bench, replace(new, uid=7, resources={"memory_max": "1024"}), replace(WEB, autostart=False))
    tftp, web = plan(bench)["services"]
    keys = {row.pop("key"): row for row in tftp.pop("keys")}
    assert tftp == {
        "name": "tftp",
        "change": "changed",
        "step": "restart",
        "reason": "exec, user, memory_max, stop_timeout changed",
        "deferred": False,
        "reloads": False,
        "file": "/a.lua",
        "line": 3,
    }
    assert keys == {
        "exec": {"old": '"/t"', "new": '"/u"', "asks": "restart", "file": "/a.lua", "line": 4},
        "user": {
            "old": '"nobody" -- 65534',
            "new": '"nobody" -- 7',
            "asks": "restart",
            "file": "/a.lua",
            "line": 3,
        },
        "memory_max": {"old": "nil", "new": '"1k"', "asks": "limits", "file": "/a.lua", "line": 3},
        "stop_timeout": {"old": '"10s"', "new": '"1m"', "asks": "adopt", "file": "/a.lua", "line": 5},
    }
    assert web["keys"] == [
        {"key": "status", "old": '"start"', "new": '"stop"', "asks": "stop", "file": "", "line": 0}
    ]


def test_a_plan_tells_entries_of_long_keys(bench: Bench) -> None:
    old = replace(TFTP, env={"A": "1", "B": "2"}, limits={"core": (0, 0)}, fd=(Descriptor("udp", host="::", port=69),))
    more = Descriptor("file", "x", path="/x", access="r")
    new = replace(old, env={"A": "1", "B": "3", "C": "4"}, limits={}, fd=(*old.fd, more), control=True)
    bench.define(old)
    find(bench, new)
    (row,) = plan(bench)["services"]
    assert [(key["key"], key["old"], key["new"]) for key in row["keys"]] == [
        ("env.B", '"2"', '"3"'),
        ("env.C", "nil", '"4"'),
        ("fd[2]", "nil", 'file("/x", "r")'),
        ("control", "false", "true"),
        ("limits.core", "0", "nil"),
    ]
    assert row["deferred"] is True


def test_what_comes_and_what_goes(bench: Bench) -> None:
    bench.define(TFTP, WEB)
    start(bench, "web")
    find(bench, TFTP, QOTD)
    found = [(row["name"], row["change"], row["step"], row["keys"]) for row in plan(bench)["services"]]
    assert found == [("qotd", "added", "start", []), ("web", "removed", "stop", [])]
    assert rows(apply(bench)) == {"qotd": ("start", True, "running", ""), "web": ("stop", True, "stopped", "")}
    assert list(bench.core.units) == ["tftp", "qotd"]


def test_settings(bench: Bench) -> None:
    places = {"log_level": "/a.lua:3"}
    bench.define(TFTP, settings=Settings(cgroup="/x"))
    find(bench, TFTP, settings=Settings(control_group=0, log_level="debug", places=places))
    settings = [
        {"key": "control_group", "old": "nil", "new": "0", "deferred": False, "file": "", "line": 0},
        {"key": "log_level", "old": '"info"', "new": '"debug"', "deferred": False, "file": "/a.lua", "line": 3},
        {"key": "cgroup", "old": '"/x"', "new": "nil", "deferred": True, "file": "", "line": 0},
    ]
    assert plan(bench)["settings"] == settings
    assert apply(bench)["settings"] == settings


def test_wrong_definitions(bench: Bench) -> None:
    bench.core.problems = ["/a.lua:1: bad"]
    for reply in (plan(bench), apply(bench)):
        assert reply["problems"] == ["/a.lua:1: bad"]
        assert (reply["services"], reply["digest"]) == ([], "")


def test_apply_waits_for_what_it_did(bench: Bench) -> None:
    bench.define(TFTP, WEB, QOTD)
    start(bench, "tftp", "qotd")
    bench.core.plans["tftp"] = "hangs"
    find(bench, replace(TFTP, exec="/u"), replace(WEB, exec="/v"), QOTD)
    client = bench.connect()
    client.call("io.spawnd.Apply")
    bench.run_until(lambda: bench.core.units["tftp"].life.starts == 2)
    bench.settle()
    assert client.is_silent()
    bench.core.fail_for_good("tftp", "exited with status 1")
    reply = client.reply()["parameters"]
    assert {row["name"]: (row["ok"], row["state"]) for row in reply["services"]} == {
        "tftp": (False, "failed"),
        "web": (True, "stopped"),
    }
    assert bench.core.units["qotd"].life.starts == 1


def test_apply_that_nobody_waits_for(bench: Bench) -> None:
    bench.define(TFTP)
    bench.core.plans["web"] = "hangs"
    find(bench, TFTP, WEB)
    assert rows(apply(bench, no_wait=True)) == {"web": ("start", True, "waiting", "start requested")}
    find(bench, TFTP, WEB, QOTD)
    client = bench.connect()
    client.send(encode_oneway("io.spawnd.Apply"))
    bench.run_until(lambda: "qotd" in bench.core.units)
    assert client.is_silent()


def test_apply_of_other_definitions_than_expected(bench: Bench) -> None:
    find(bench)
    reply = bench.call("io.spawnd.Apply", expect="d0")
    assert reply == {"error": "io.spawnd.OtherDefinitions", "parameters": {"digest": DIGEST}}
    assert len(bench.core.units) == 3
    assert apply(bench, expect=DIGEST)["digest"] == DIGEST
    assert not bench.core.units


@pytest.mark.parametrize("how", ["works", "fails"])
def test_apply_with_a_reload(bench: Bench, how: str) -> None:
    tftp = replace(TFTP, reload_signal=1)
    bench.define(tftp, WEB)
    start(bench, "tftp", "web")
    find(bench, tftp, WEB)
    assert plan(bench)["services"] == []
    (row,) = plan(bench, reload=True)["services"]
    assert (row["name"], row["step"], row["reloads"]) == ("tftp", "reload", True)
    bench.core.plans["tftp"] = how
    assert rows(apply(bench, reload=True)) == {
        "tftp": ("reload", how == "works", "running", "" if how == "works" else "it is not running")
    }
    assert ("reload", "tftp") in bench.core.asked


def test_apply_waits_for_a_reload(bench: Bench) -> None:
    tftp = replace(TFTP, reload_signal=1)
    bench.define(tftp)
    start(bench, "tftp")
    bench.core.plans["tftp"] = "hangs"
    assert rows(apply(bench, reload=True, no_wait=True)) == {"tftp": ("reload", True, "running", "asked to reload")}
    client = bench.connect()
    client.call("io.spawnd.Apply", reload=True)
    bench.run_until(lambda: len(bench.core.reloads) == 2)
    bench.settle()
    assert client.is_silent()
    bench.core.reloads.pop()("check failed")
    (row,) = client.reply()["parameters"]["services"]
    assert (row["ok"], row["message"]) == (False, "check failed")


def test_a_caller_that_hangs_up_ends_the_wait_and_not_the_change(bench: Bench) -> None:
    find(bench, WEB)
    client = bench.connect()
    client.call("io.spawnd.Apply")
    client.sock.close()
    bench.run_until(lambda: list(bench.core.units) == ["web"])
    bench.settle()


class Answers:
    """The connection of a call that is begun anew."""

    has_room_for_channel = True

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.has_room = True

    def send(self, message: bytes) -> None:
        self.sent.append(json.loads(message[:-1])["parameters"])

    def in_turn(self, action: Callable[[], None]) -> None:
        action()

    def discard_channel(self, sock: socket.socket) -> None:
        sock.close()

    def answered(self, ends: bool) -> None:
        pass


def begin(bench: Bench, memo: dict[str, Any], **parameters: object) -> Answers:
    answers = Answers()
    call = Call("io.spawnd.Apply", parameters)
    pending = PendingCall(call, Credentials(1, 0, 0), bench.loop, answers)
    pending.memo = memo
    apply_verb.run(pending, bench.core)
    return answers


def test_a_call_that_is_begun_anew_changes_nothing_twice(bench: Bench) -> None:
    tftp = replace(TFTP, reload_signal=1)
    bench.define(tftp, WEB)
    start(bench, "tftp", "web")
    bench.core.plans.update(tftp="hangs", web="stubborn")
    find(bench, tftp, replace(WEB, exec="/v"), notices=["look"])
    memo: dict[str, Any] = {}
    begin(bench, memo, reload=True)
    bench.run_until(lambda: bool(memo))
    asked = list(bench.core.asked)
    answers = begin(bench, json.loads(json.dumps(memo)), reload=True)
    assert not answers.sent, "web is still stopping"
    bench.core.plans["web"] = "works"
    bench.core.event("web", machine.exited, True, "killed by TERM", 0.0)
    bench.run_until(lambda: bool(answers.sent))
    (reply,) = answers.sent
    assert rows(reply) == {
        "tftp": ("reload", True, "running", "asked to reload"),
        "web": ("restart", True, "running", ""),
    }
    assert (reply["notices"], reply["digest"]) == (["look"], DIGEST)
    assert bench.core.asked == asked
    bench.core.reloads.pop()("")


@pytest.mark.parametrize(
    ("method", "parameters", "wrong"),
    [
        ("Plan", {"reload": 1}, "reload"),
        ("Plan", {"expect": "x"}, "expect"),
        ("Apply", {"expect": 5}, "expect"),
        ("Apply", {"no_wait": "yes"}, "no_wait"),
        ("Apply", {"names": ["web"]}, "names"),
        ("Graph", {"names": "web"}, "names"),
    ],
)
def test_wrong_parameters(bench: Bench, method: str, parameters: dict[str, object], wrong: str) -> None:
    reply = bench.call(f"io.spawnd.{method}", **parameters)
    assert reply == {"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": wrong}}
    assert bench.core.asked == []


def test_graph(bench: Bench) -> None:
    bench.define(Service("db"), Service("web", depends=("db",), after=("log1", "db")), Service("log1"), Service("x"))
    reply = bench.call("io.spawnd.Graph")["parameters"]
    SPAWND.check(reply, SPAWND.methods["Graph"][1])
    db = {"name": "db", "state": "stopped", "internal": False, "asked": None, "began": None, "came_up": None}
    assert reply["nodes"][0] == db
    assert [node["name"] for node in reply["nodes"]] == ["db", "web", "log1", "x"]
    assert reply["edges"] == [
        {"from": "web", "to": "db", "kind": "depends"},
        {"from": "web", "to": "log1", "kind": "after"},
    ]
    reply = bench.call("io.spawnd.Graph", names=["d*"])["parameters"]
    assert [node["name"] for node in reply["nodes"]] == ["db", "web"]
    assert len(reply["edges"]) == 1
    assert bench.call("io.spawnd.Graph", names=["nope"])["error"] == "io.spawnd.NoSuchService"


@pytest.mark.parametrize("no_wait", [False, True])
def test_what_is_answered_has_been_written_down(bench: Bench, no_wait: bool) -> None:
    bench.define(TFTP)
    find(bench, TFTP, WEB)
    told = rows(apply(bench, no_wait=no_wait))
    assert bench.core.settled["web"].value == told["web"][2]
