"""Changes of states as they happen, for readers of every speed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from supervisor.control.orders import iso_8601
from supervisor.control.verbs.monitor import MOST, folded
from supervisor.definitions.service import Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import Idleness, Life, State
from supervisor.varlink.connection import PATIENCE
from tests.unit.control.bench import Bench, Client, resume
from tests.unit.control.fake_core import FakeUnit

MONITOR = "io.spawnd.Monitor"
Seen = tuple[str, str | None, str | None]


def monitor(bench: Bench, **parameters: object) -> Client:
    client = bench.connect()
    client.stream(MONITOR, **parameters)
    bench.settle()
    return client


def changes(client: Client) -> list[dict[str, Any]]:
    reply = client.reply()
    assert reply["continues"] is True
    found: list[dict[str, Any]] = reply["parameters"]["changes"]
    return found


def seen(client: Client, count: int) -> list[Seen]:
    """So many changes, by name, old and new state; no more have come."""
    found: list[Seen] = []
    while len(found) < count:
        found += [(change["name"], change["old"], change["state"]) for change in changes(client)]
    assert len(found) == count
    return found


def test_a_service_that_becomes_idle_or_busy_is_a_change(bench: Bench) -> None:
    unit = bench.core.units["web"]
    unit.service = replace(unit.service, idle_stop=300.0)
    unit.life = Life(State.RUNNING, bench.core.loop.clock(), "running")
    client = monitor(bench, names=["web"], changes_only=True)
    for idle, words in (
        (Idleness(busy="1 connection"), "running; busy: 1 connection"),
        (Idleness(busy="2 connections"), None),  # it was busy before
        (Idleness(since=bench.core.loop.clock()), "running; idle for "),
    ):
        unit.idle = idle
        for observer in list(bench.core.observers.values()):
            observer(unit)
        bench.settle()
        if words is not None:
            [change] = changes(client)
            assert change["state"] == "running"
            assert change["reason"].startswith(words)


def test_the_present_states_then_every_change(bench: Bench) -> None:
    client = monitor(bench)
    assert seen(client, 3) == [("qotd", None, "stopped"), ("tftp", None, "stopped"), ("web", None, "stopped")]
    bench.core.start(["web"])
    found: list[dict[str, Any]] = []
    while len(found) < 3:
        found += changes(client)
    assert [(change["old"], change["state"]) for change in found] == [
        ("stopped", "waiting"),
        ("waiting", "starting"),
        ("starting", "running"),
    ]
    unit = bench.core.units["web"]
    assert found[2] == {
        "at": iso_8601(bench.core.unix_time(unit.life.since)),
        "name": "web",
        "old": "starting",
        "state": "running",
        "reason": "running",
        "pid": unit.pid,
        "skipped": 0,
    }
    bench.settle()
    assert client.is_silent()


def test_changes_only(bench: Bench) -> None:
    client = monitor(bench, changes_only=True)
    assert client.is_silent()
    bench.core.plans["web"] = "hangs"
    bench.core.start(["web"])
    assert seen(client, 2)[0] == ("web", "stopped", "waiting")


def test_those_that_are_meant(bench: Bench) -> None:
    bench.core.units["log"] = FakeUnit(Service("log", worker="log"), bench.clock(), internal=True)
    bench.core.plans = dict.fromkeys(("qotd", "tftp", "web", "wiki"), "hangs")
    client = monitor(bench, names=["w*", "log"])
    assert seen(client, 2) == [("web", None, "stopped"), ("log", None, "stopped")]
    bench.core.start(["tftp"])
    bench.core.define(Service("wiki"))
    bench.core.define(Service("other"))
    assert seen(client, 1) == [("wiki", None, "stopped")]
    bench.core.event("log", machine.start)
    assert seen(client, 2) == [("log", "stopped", "waiting"), ("log", "waiting", "starting")]


def test_what_it_waits_for_is_told(bench: Bench) -> None:
    core = bench.define(Service("web", depends=("db",)), Service("db", ready="notify"))
    client = monitor(bench, names=["web"], changes_only=True)
    core.start(["web"])
    bench.run_until(lambda: core.units["db"].life.state is State.STARTING and bool(core.units["web"].waits))
    bench.settle()
    reasons = []
    while "needs db, which is starting" not in reasons:
        reasons += [change["reason"] for change in changes(client)]
    assert reasons[0] == "start requested"


def test_one_that_is_removed_and_comes_back(bench: Bench) -> None:
    client = monitor(bench, names=["web"])
    seen(client, 1)
    bench.core.remove("web")
    bench.core.tell(bench.core.units["qotd"])
    assert seen(client, 1) == [("web", "stopped", None)]
    bench.core.define(Service("web"))
    assert seen(client, 1) == [("web", None, "stopped")]


@pytest.mark.parametrize("flags", [{}, {"more": True, "oneway": True}])
def test_it_has_many_replies(bench: Bench, flags: dict[str, bool]) -> None:
    client = bench.connect()
    client.send(json.dumps({"method": MONITOR, **flags}).encode() + b"\0")
    if flags:
        client.call("io.spawnd.GetVersion")
        assert "version" in client.reply()["parameters"], "nobody hears a call with oneway"
    else:
        assert client.reply() == {"error": "org.varlink.service.ExpectedMore", "parameters": {}}
    assert not bench.core.observers


def test_a_name_that_means_nothing(bench: Bench) -> None:
    client = monitor(bench, names=["web", "nope"])
    assert client.reply() == {"error": "io.spawnd.NoSuchService", "parameters": {"name": "nope", "suggestion": None}}
    assert not bench.core.observers


def test_no_timer_and_nothing_to_do_while_nothing_changes(bench: Bench) -> None:
    client = monitor(bench)
    seen(client, 3)
    bench.streaming()
    assert bench.is_idle()
    client.sock.close()
    bench.run_until(lambda: not bench.core.observers)


def change(bench: Bench, name: str = "web") -> None:
    """Two changes: it is started, and stopped at once."""
    bench.core.start([name])
    bench.core.stop([name])


def test_a_reader_who_keeps_up_gets_every_change(bench: Bench) -> None:
    client = monitor(bench, changes_only=True)
    for _ in range(20):
        change(bench)
        assert seen(client, 2) == [("web", "stopped", "waiting"), ("web", "waiting", "stopped")]


def test_a_burst_is_folded_as_little_as_need_be(bench: Bench) -> None:
    client = monitor(bench, names=["web"], changes_only=True)
    for _ in range(MOST // 2):
        change(bench)
    found: list[dict[str, Any]] = []
    while len(found) < MOST:
        found += changes(client)
    assert not any(row["skipped"] for row in found)


def test_a_slow_reader_costs_no_more_than_the_services(bench: Bench) -> None:
    client = monitor(bench, changes_only=True)
    pending = bench.pending()
    made = 0
    while pending.has_room:
        change(bench)
        made += 2
        if made % 100 == 0:
            bench.advance(0)
    connection = bench.streaming()
    output = len(connection._output)
    for _ in range(5 * MOST):
        change(bench, "web")
        change(bench, "qotd")
        made += 4
    assert len(connection._output) == output
    assert len(pending.memo["waiting"]) <= MOST
    bench.advance(2 * PATIENCE)
    assert not pending.ended, "who reads slowly is waited for"
    told, last = 0, dict[str, str]()
    while told < made:
        for row in changes(client):
            assert row["old"] == last.get(row["name"], "stopped"), "the changes of a service hang together"
            told += 1 + row["skipped"]
            last[row["name"]] = row["state"]
    assert told == made
    assert last == {"web": "stopped", "qotd": "stopped"}
    change(bench)
    assert seen(client, 2)[-1] == ("web", "waiting", "stopped"), "and then it is in time again"


def test_the_first_states_of_many_come_as_they_are_read(bench: Bench) -> None:
    bench.define(*(Service(f"service-{number}") for number in range(5000)))
    client = monitor(bench)
    connection = bench.streaming()
    assert len(connection._output) < 100_000
    assert len(seen(client, 5000)) == 5000


def test_many_who_do_not_read_slow_nobody_down(bench: Bench) -> None:
    stuck = [monitor(bench) for _ in range(100)]
    reader = monitor(bench, names=["web"], changes_only=True)
    for _ in range(200):
        change(bench)
        assert len(seen(reader, 2)) == 2
    assert len(stuck) + 1 == len(bench.server._clients)


def test_it_goes_on_from_its_memo(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    core = bench.core
    client = monitor(bench)
    seen(client, 3)
    memo = bench.pending().memo
    # what was not sent yet is part of it
    memo["waiting"].append({"name": "web", "old": "x", "state": "y", "skipped": 0})
    client.sock.close()
    bench.run_until(lambda: not core.observers)
    core.plans["tftp"] = "hangs"
    core.start(["tftp"])
    core.remove("qotd")
    client = bench.connect()
    resume(monkeypatch, MONITOR, memo)
    client.stream(MONITOR, names=["qotd", "tftp", "web"])
    found = seen(client, 3)
    assert found == [("web", "x", "y"), ("qotd", "stopped", None), ("tftp", "stopped", "starting")]
    core.stop(["tftp"])
    assert seen(client, 1) == [("tftp", "starting", "stopping")]


def test_folding() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a", "old": None, "state": "stopped", "skipped": 0},
        {"name": "b", "old": "running", "state": "stopping", "skipped": 2},
        {"name": "a", "old": "stopped", "state": "waiting", "skipped": 0},
        {"name": "c", "old": "waiting", "state": "starting", "skipped": 0},
        {"name": "b", "old": "stopping", "state": None, "skipped": 0},
    ]
    assert folded(rows) == [
        {"name": "a", "old": None, "state": "waiting", "skipped": 1},
        {"name": "c", "old": "waiting", "state": "starting", "skipped": 0},
        {"name": "b", "old": "running", "state": None, "skipped": 3},
    ]
