"""Calls that are passed on to a service and that have more than one reply."""

from __future__ import annotations

import json

from supervisor.varlink.channel import PATIENCE
from tests.unit.control.bench import Bench
from tests.unit.control.fake_service import MakeService, ask, asked


def test_more_replies(bench: Bench, service: MakeService) -> None:
    web = service()
    client = ask(bench, more=True, timeout=5)
    peer = web.accept()
    assert peer.call()["more"] is True
    for number in range(3):
        peer.reply({"n": number}, continues=True)
        assert client.reply() == {"parameters": {"reply": {"n": number}}, "continues": True}
        bench.advance(1000)  # an event may take its time
    peer.reply({"n": 3})
    assert client.reply() == {"parameters": {"reply": {"n": 3}}}


def test_many_replies_at_once(bench: Bench, service: MakeService) -> None:
    client, peer = asked(bench, service(), more=True)
    peer.send(b'{"parameters":{},"continues":true}\0' * 5000 + b'{"error":"a.b.End"}\0')
    for _ in range(5000):
        assert client.reply()["continues"] is True
    assert client.reply()["parameters"]["error"] == "a.b.End"


def test_the_first_of_more_replies_has_a_time_limit(bench: Bench, service: MakeService) -> None:
    client, _peer = asked(bench, service(), more=True)
    bench.advance(11)
    assert client.reply()["error"] == "io.spawnd.TimedOut"


def test_the_rest_of_a_reply_is_awaited_for_a_while(bench: Bench, service: MakeService) -> None:
    client, peer = asked(bench, service(), more=True)
    peer.send(b'{"continues":true}\0{"param')
    assert client.reply()["continues"] is True
    bench.settle()
    bench.advance(PATIENCE - 1)
    peer.send(b"e")  # who dribbles is not waited for any longer
    bench.settle()
    assert client.is_silent()
    bench.advance(2)
    assert client.reply()["error"] == "io.spawnd.TimedOut"


def test_a_stream_that_breaks_off(bench: Bench, service: MakeService) -> None:
    client, peer = asked(bench, service(), more=True)
    peer.reply({}, continues=True)
    peer.sock.close()
    assert client.reply()["continues"] is True
    assert client.reply()["error"] == "io.spawnd.ConnectionLost"


def test_a_stream_goes_no_faster_than_its_reader(bench: Bench, service: MakeService) -> None:
    client, peer = asked(bench, service(), more=True)
    line = json.dumps({"parameters": {"text": "x" * 10_000}, "continues": True}).encode() + b"\0"
    sent = idle = 0
    while idle < 3:
        now = peer.send_nowait(line)
        sent += now
        idle = 0 if now else idle + 1
        bench.settle()
    assert sent < 3 << 20
    assert sum(connection._held[1] for connection in bench.server._clients) < 1 << 18
    received = sent // len(line)
    assert sent % len(line) == 0 or received > 10
    for _ in range(received):
        assert client.reply()["continues"] is True
    peer.sock.close()
    assert client.reply()["error"] == "io.spawnd.ConnectionLost"
