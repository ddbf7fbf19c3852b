"""One client: order, buffers, time limits, ways to go."""

from __future__ import annotations

import json
import random
import socket

import pytest

from supervisor.definitions.service import Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import State
from supervisor.varlink.connection import MAX_OUTPUT, PATIENCE
from supervisor.varlink.messages import MAX_REQUEST
from tests.unit.control.bench import Bench, encode, encode_oneway

VERSION = encode("io.spawnd.GetVersion")


def test_a_call_that_comes_byte_by_byte(bench: Bench) -> None:
    client = bench.connect()
    for at in range(len(VERSION)):
        client.send(VERSION[at : at + 1])
    assert "version" in client.reply()["parameters"]


def test_a_call_split_at_every_byte(bench: Bench) -> None:
    client = bench.connect()
    for at in range(1, len(VERSION)):
        client.send(VERSION[:at])
        client.send(VERSION[at:])
        assert "version" in client.reply()["parameters"]


def test_pipelined_calls_are_answered_in_order(bench: Bench) -> None:
    client = bench.connect()
    names = ["web", "nope", "qotd"] * 50
    client.send(b"".join(encode("io.spawnd.List", names=[name]) for name in names))
    for name in names:
        reply = client.reply()
        if name == "nope":
            assert reply["error"] == "io.spawnd.NoSuchService"
        else:
            assert reply["parameters"]["services"][0]["name"] == name


def test_a_call_that_waits_holds_up_those_behind_it_and_nobody_else(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.send(encode("io.spawnd.Start", names=["web"]) + encode("io.spawnd.Stop", names=["qotd"]) + VERSION)
    bench.run_until(lambda: bench.core.units["web"].life.state is State.STARTING)
    bench.settle()
    assert client.is_silent()
    assert bench.core.asked == [("start", ["web"])]
    bench.core.event("web", machine.executed)
    assert client.results() == {"web": (True, "running", "")}
    assert client.results() == {"qotd": (True, "stopped", "")}
    assert "version" in client.reply()["parameters"]


def test_calls_without_a_reply(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.send(
        encode_oneway("io.spawnd.Start", names=["web"])
        + encode_oneway("io.spawnd.Start", names=["nope"])
        + encode_oneway("io.spawnd.Nope")
        + VERSION
    )
    assert "version" in client.reply()["parameters"]
    assert bench.core.asked == [("start", ["web"])]
    assert client.is_silent()


def test_a_client_that_leaves_after_its_orders_is_obeyed(bench: Bench) -> None:
    client = bench.connect()
    client.send(b"".join(encode_oneway("io.spawnd.Start", names=[name]) for name in ("web", "qotd")))
    client.sock.close()
    bench.run_until(lambda: all(bench.core.units[name].life.state is State.RUNNING for name in ("web", "qotd")))


def test_hanging_up_ends_the_wait_and_nothing_else(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.send(encode("io.spawnd.Start", names=["web"]) + encode("io.spawnd.Stop", names=["web"]))
    bench.run_until(lambda: len(bench.core.observers) == 1)
    client.sock.close()
    bench.run_until(lambda: not bench.core.observers)
    bench.settle()
    assert bench.core.units["web"].life.state is State.STARTING
    assert bench.core.asked == [("start", ["web"])]


def test_a_client_that_only_ends_its_sending_gets_its_replies(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.send(encode("io.spawnd.Start", names=["web"]) + VERSION + b'{"half')
    client.sock.shutdown(socket.SHUT_WR)
    bench.run_until(lambda: bench.core.units["web"].life.state is State.STARTING)
    bench.settle()
    assert client.is_silent()
    bench.core.event("web", machine.executed)
    assert client.results() == {"web": (True, "running", "")}
    assert "version" in client.reply()["parameters"]
    client.wait_closed()


def test_a_late_answer_to_one_who_left(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.call("io.spawnd.Reload", names=["web"])
    bench.run_until(lambda: len(bench.core.reloads) == 1)
    client.sock.close()
    bench.settle()
    bench.core.reloads[0]("")
    bench.settle()


@pytest.mark.parametrize("garbage", [b"garbage\0", b"\0", b"[]\0", b"GET / HTTP/1.1\r\n\r\n\0", b"\xff" * 99 + b"\0"])
def test_garbage_is_answered_and_closed(bench: Bench, garbage: bytes) -> None:
    client = bench.connect()
    client.send(VERSION + garbage + VERSION)
    assert "version" in client.reply()["parameters"]
    assert client.reply()["error"] == "io.spawnd.Malformed"
    client.wait_closed()
    bench.settle()


def test_a_call_that_is_too_long_is_answered_and_closed(bench: Bench) -> None:
    client = bench.connect()
    client.send(b" " * (MAX_REQUEST + 1))
    assert "longer than" in client.reply()["parameters"]["message"]
    client.wait_closed()


def test_the_longest_call_is_served(bench: Bench) -> None:
    client = bench.connect()
    client.send(b" " * (MAX_REQUEST - len(VERSION)) + VERSION)
    assert "version" in client.reply()["parameters"]


def test_what_comes_behind_a_waiting_call_is_left_where_it_is(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.call("io.spawnd.Start", names=["web"])
    bench.run_until(lambda: bench.core.units["web"].life.state is State.STARTING)
    sent = 0
    try:
        while sent < 8 * MAX_REQUEST:
            sent += client.sock.send(VERSION * 1000)
            bench.settle()
    except BlockingIOError:
        pass
    assert sent < MAX_REQUEST
    assert all(connection._held == (0, 0) for connection in bench.server._clients)


def test_the_rest_of_a_call_is_awaited_for_a_while(bench: Bench) -> None:
    client, idle = bench.connect(), bench.connect()
    client.send(VERSION + b'{"method"')
    assert "version" in client.reply()["parameters"]
    bench.settle()
    bench.advance(PATIENCE - 1)
    client.send(b":")  # who dribbles is not waited for any longer
    bench.settle()
    assert client.is_silent()
    bench.advance(2)
    client.wait_closed()
    bench.advance(1000)
    assert idle.is_silent()  # a client without a call is left alone


def test_a_waiting_call_may_take_any_time(bench: Bench) -> None:
    bench.core.plans["web"] = "hangs"
    client = bench.connect()
    client.send(encode("io.spawnd.Start", names=["web"]) + b'{"half')
    bench.run_until(lambda: bench.core.units["web"].life.state is State.STARTING)
    bench.advance(1000)
    assert client.is_silent()
    bench.core.event("web", machine.executed)
    assert client.results() == {"web": (True, "running", "")}
    bench.advance(PATIENCE + 1)
    client.wait_closed()


def big_lists(bench: Bench) -> bytes:
    bench.define(*(Service(f"service-{number}", description="d" * 900) for number in range(1000)))
    return encode("io.spawnd.List")


def test_a_client_that_does_not_read_costs_one_reply_and_is_dropped(bench: Bench) -> None:
    client = bench.connect()
    client.send(big_lists(bench) * 50)
    bench.settle()
    calls = 0
    usage = bench.core.units["service-0"].usage

    def counted() -> tuple[int | None, float | None]:
        nonlocal calls
        calls += 1
        return usage()

    bench.core.units["service-0"].usage = counted  # type: ignore[method-assign]
    bench.settle()
    assert calls == 0  # the next call is not begun before the last reply is out
    bench.advance(PATIENCE + 1)
    bench.run_until(lambda: client._receive() or client.ended)
    assert len(client.received) < MAX_OUTPUT


def test_a_slow_reader_is_served_as_long_as_it_reads(bench: Bench) -> None:
    client = bench.connect()
    client.send(big_lists(bench))
    received = bytearray()
    while not received.endswith(b"\0"):
        bench.advance(PATIENCE - 1)
        received += client.sock.recv(1 << 17)
    assert len(json.loads(received[:-1])["parameters"]["services"]) == 1000


def test_replies_that_pile_up_end_the_connection(bench: Bench) -> None:
    client = bench.connect()
    bench.core.plans["web"] = "hangs"
    client.call("io.spawnd.Start", names=["web"])
    bench.run_until(lambda: bench.core.units["web"].life.state is State.STARTING)
    (connection,) = bench.server._clients
    pending = connection._pending
    assert pending is not None
    for _ in range(8):
        pending.reply_more({"text": "x" * (1 << 20)})
    assert pending.ended
    assert not bench.server._clients


def test_random_bytes_harm_nobody(bench: Bench) -> None:
    source = random.Random(1)
    pieces = [VERSION, b"\0", b'{"method":', b"{}", b'"io.spawnd.Start"', b"[" * 50, b"\xff", b"null", b"1e999"]
    for _ in range(300):
        client = bench.connect()
        try:
            client.sock.send(b"".join(source.choices(pieces, k=source.randint(0, 12))))
        except OSError:
            pass
        client.sock.close()
    bench.settle()
    bench.run_until(lambda: not bench.server._clients)
