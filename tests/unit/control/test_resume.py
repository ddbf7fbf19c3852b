"""Connections that outlive their server: whoever called sees one answer, as if nothing had happened."""

from __future__ import annotations

import os
import socket

import pytest

from supervisor.definitions.service import Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import State
from supervisor.varlink.connection import PATIENCE
from tests.unit.control.bench import Bench, Client, encode, encode_oneway
from tests.unit.control.test_introspection import SPAWND

VERSION = encode("io.spawnd.GetVersion")


def waiting(bench: Bench, message: bytes) -> Client:
    """A client whose call has been begun and waits."""
    client = bench.connect()
    client.send(message)
    bench.run_until(lambda: bool(bench.core.asked))
    bench.settle()
    assert client.is_silent()
    return client


def test_who_has_asked_nothing_can_still_ask(bench: Bench) -> None:
    client = bench.connect()
    client.send(VERSION)
    client.reply()
    bench.execute()
    client.send(VERSION)
    assert "version" in client.reply()["parameters"]
    assert "version" in bench.call("io.spawnd.GetVersion")["parameters"], "new clients, too"


def test_its_descriptors_are_no_child_s(bench: Bench) -> None:
    bench.connect()
    bench.settle()
    bench.execute()
    sockets = [bench.server._listener.fileno(), *(one._sock.fileno() for one in bench.server._clients)]
    assert len(sockets) > 1
    assert not any(os.get_inheritable(fd) for fd in sockets)


@pytest.mark.parametrize("at", [1, 20, len(VERSION) - 1])
def test_half_a_call(bench: Bench, at: int) -> None:
    client = bench.connect()
    client.send(VERSION[:at])
    bench.settle()
    bench.execute()
    bench.settle()
    client.send(VERSION[at:])
    assert "version" in client.reply()["parameters"]


def test_half_a_call_is_not_awaited_for_ever(bench: Bench) -> None:
    client = bench.connect()
    client.send(VERSION[:10])
    bench.settle()
    bench.execute()
    bench.settle()
    bench.advance(PATIENCE + 1)
    client.wait_closed()


def test_a_start_that_waits_is_answered_and_not_ordered_again(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = waiting(bench, encode("io.spawnd.Start", names=["web"]))
    for _ in range(3):
        bench.execute()
        bench.settle()
    assert client.is_silent()
    bench.core.event("web", machine.executed)
    assert client.results() == {"web": (True, "running", "")}
    assert bench.core.asked == [("start", ["web"])]


def test_what_is_decided_in_the_meantime_is_answered_at_once(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = waiting(bench, encode("io.spawnd.Start", names=["web"]))
    (pending,) = (one._pending for one in bench.server._clients if one._pending is not None)
    pending._on_end.pop()()  # it observes no more: the old one is as good as gone
    bench.core.event("web", machine.executed)
    bench.execute()
    assert client.results() == {"web": (True, "running", "")}


def test_a_restart_that_waits_is_judged_by_the_start_before_it(bench: Bench) -> None:
    """A running service satisfies a start, but not a restart."""
    client = bench.connect()
    client.call("io.spawnd.Start", names=["web"])
    client.results()
    bench.core.asked.clear()
    bench.core.plans["web"] = "stubborn"
    client = waiting(bench, encode("io.spawnd.Restart", names=["web"]))
    bench.execute()
    bench.settle()
    assert client.is_silent()
    bench.core.plans["web"] = "works"
    bench.core.event("web", machine.exited, True, "killed by TERM", 0.0)
    assert client.results() == {"web": (True, "running", "")}
    assert bench.core.asked == [("restart", ["web"])]


def test_a_stop_that_somebody_undoes_is_known_to_have_been_under_way(bench: Bench) -> None:
    client = bench.connect()
    client.call("io.spawnd.Start", names=["web"])
    client.results()
    bench.core.asked.clear()
    bench.core.plans["web"] = "stubborn"
    client = waiting(bench, encode("io.spawnd.Stop", names=["web"]))
    bench.execute()
    bench.settle()
    assert client.is_silent()
    bench.core.event("web", machine.start)
    bench.core.plans["web"] = "works"
    bench.core.event("web", machine.exited, True, "killed by TERM", 0.0)
    assert client.results()["web"][0] is False
    assert bench.core.asked == [("stop", ["web"])]


def test_a_reload_asks_nobody_twice(bench: Bench) -> None:
    bench.define(*(Service(name, reload_signal=1) for name in ("web", "qotd", "tftp")))
    bench.core.plans["web"] = "hangs"
    client = waiting(bench, encode("io.spawnd.Reload", names=["web", "qotd", "tftp"]))
    bench.execute()
    bench.settle()
    assert client.is_silent()
    assert sorted(bench.core.asked) == sorted(
        [("reload", "qotd"), ("reload", "tftp"), ("reload", "web"), ("reload", "web")]
    ), "of the one under way the core knows that it is, and has the client wait for it"
    for done in bench.core.reloads:
        done("")
    assert {name: row[0] for name, row in client.results().items()} == {"web": True, "qotd": True, "tftp": True}


def test_a_check_is_made_again(bench: Bench) -> None:
    client = bench.connect()
    bench.core.check = lambda done: None  # type: ignore[method-assign]  # never ends
    client.call("io.spawnd.Check")
    bench.settle()
    del bench.core.check
    bench.execute()
    assert client.reply()["parameters"] == {"services": 3, "problems": [], "notices": []}


def test_the_answer_to_reexec_comes_from_the_next_one(bench: Bench) -> None:
    client = bench.connect()
    bench.core.reexec = lambda done: None  # type: ignore[method-assign]  # this process becomes another one
    client.call("io.spawnd.Reexec")
    bench.settle()
    del bench.core.reexec
    bench.execute()
    reply = client.reply()["parameters"]
    assert reply["pid"] == os.getpid()
    SPAWND.check(reply, SPAWND.methods["Reexec"][1], "reply of Reexec")
    assert ("reexec", None) not in bench.core.asked


def test_calls_behind_the_one_that_waits_are_served_after_it(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    message = encode("io.spawnd.Start", names=["web"]) + encode("io.spawnd.Stop", names=["qotd"]) + VERSION
    client = waiting(bench, message + VERSION[:7])
    bench.execute()
    bench.settle()
    assert client.is_silent()
    bench.core.event("web", machine.executed)
    assert client.results() == {"web": (True, "running", "")}
    assert client.results() == {"qotd": (True, "stopped", "")}
    assert "version" in client.reply()["parameters"]
    client.send(VERSION[7:])
    assert "version" in client.reply()["parameters"]


def test_one_that_ended_its_sending_gets_its_replies_and_is_closed(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.send(encode("io.spawnd.Start", names=["web"]) + VERSION)
    client.sock.shutdown(socket.SHUT_WR)
    bench.run_until(lambda: bench.core.units["web"].life.state is State.STARTING)
    bench.settle()
    bench.execute()
    bench.core.event("web", machine.executed)
    assert client.results() == {"web": (True, "running", "")}
    assert "version" in client.reply()["parameters"]
    client.wait_closed()


def test_one_that_hangs_up_in_between_is_forgotten_and_its_order_stands(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = waiting(bench, encode("io.spawnd.Start", names=["web"]))
    client.sock.close()
    bench.execute()
    bench.run_until(lambda: not bench.server._clients)
    bench.run_until(lambda: not bench.core.observers)
    assert bench.core.units["web"].life.state is State.STARTING


def test_a_oneway_call_is_answered_by_nobody(bench: Bench) -> None:
    client = bench.connect()
    client.send(encode_oneway("io.spawnd.Start", names=["web"]) + VERSION)
    assert "version" in client.reply()["parameters"]
    bench.execute()
    bench.settle()
    assert client.is_silent()


def test_what_could_not_be_sent_yet_is_sent(bench: Bench) -> None:
    bench.define(*(Service(f"service-{number}", description="d" * 900) for number in range(1000)))
    client = bench.connect()
    client.call("io.spawnd.List")
    bench.settle()
    bench.execute()
    bench.settle()
    bench.execute()
    assert len(client.reply()["parameters"]["services"]) == 1000


def test_who_does_not_read_is_dropped_then_as_before(bench: Bench) -> None:
    bench.define(*(Service(f"service-{number}", description="d" * 900) for number in range(1000)))
    client = bench.connect()
    client.call("io.spawnd.List")
    bench.settle()
    bench.execute()
    bench.settle()
    bench.advance(PATIENCE + 1)
    bench.run_until(lambda: not bench.server._clients)
    assert client.sock.fileno() >= 0


def test_one_that_was_to_be_closed_is(bench: Bench) -> None:
    """Garbage is answered and closed, also where the answer is still on its way."""
    bench.define(*(Service(f"service-{number}", description="d" * 900) for number in range(1000)))
    client = bench.connect()
    client.send(encode("io.spawnd.List") + b"garbage\0" + VERSION)
    bench.settle()
    bench.execute()
    assert len(client.reply()["parameters"]["services"]) == 1000
    assert client.reply()["error"] == "io.spawnd.Malformed"
    client.wait_closed()
