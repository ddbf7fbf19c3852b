"""Calls that are passed on to a service: what it may answer, and what else it may do."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.control.errors import ConnectionLost
from supervisor.control.verbs import call as verb
from supervisor.control.verbs.introspection import OWN
from supervisor.definitions.service import Descriptor, Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import State
from supervisor.linux.peers import Credentials
from supervisor.notify import safe_close
from supervisor.varlink.messages import MAX_REPLY, MAX_REQUEST, Call, Malformed, parse_reply
from supervisor.varlink.pending_call import PendingCall
from tests.unit.control.bench import Bench, encode_call
from tests.unit.control.fake_service import MakeService, ask, asked
from tests.unit.control.test_introspection import SPAWND
from tests.unit.varlink.lingering import lingering, pass_on

INFO = {"vendor": "", "product": "", "version": "", "url": ""}


def test_what_is_called_is_answered(bench: Bench, service: MakeService) -> None:
    web = service()
    client = ask(bench, parameters={"x": [1, {"y": "\0é"}], "z": None})
    peer = web.accept()
    assert peer.call() == {"method": "a.b.Do", "parameters": {"x": [1, {"y": "\0é"}], "z": None}}
    peer.reply({"result": 7.5})
    reply = client.reply()
    assert reply == {"parameters": {"reply": {"result": 7.5}}}
    SPAWND.check(reply["parameters"], SPAWND.methods["Call"][1], "reply of Call")
    peer.wait_closed()


def test_a_method_without_a_dot_is_the_service_s_own(bench: Bench, service: MakeService) -> None:
    web = service()
    client = ask(bench, "Do", parameters={"x": 1})
    peer = web.accept()
    assert peer.call() == {"method": "org.varlink.service.GetInfo", "parameters": {}}
    peer.reply({**INFO, "interfaces": ["org.varlink.service", "com.example.web", "com.example.other"]})
    assert peer.call() == {"method": "com.example.web.Do", "parameters": {"x": 1}}
    peer.reply({})
    assert client.reply() == {"parameters": {"reply": {}}}


@pytest.mark.parametrize(
    "interfaces", [None, "a.b", [], ["org.varlink.service"], ["a b.c"], [""], [1, None], ["a" * 300], {"a.b": 1}]
)
def test_info_that_names_no_interface(bench: Bench, service: MakeService, interfaces: object) -> None:
    client, peer = asked(bench, service(), method="Do")
    peer.reply({"interfaces": interfaces})
    assert client.reply()["error"] == "io.spawnd.BadReply"
    peer.wait_closed()


def test_info_that_is_refused(bench: Bench, service: MakeService) -> None:
    client, peer = asked(bench, service(), method="Do")
    peer.send(b'{"error": "org.varlink.service.MethodNotFound", "parameters": {"method": "x"}}\0')
    parameters = client.reply()["parameters"]
    assert parameters["error"] == "org.varlink.service.MethodNotFound"


@pytest.mark.parametrize("error", ["com.example.web.Bad", "io.spawnd.NoSuchService", "org.varlink.service.X"])
def test_errors_of_the_service_are_its_own(bench: Bench, service: MakeService, error: str) -> None:
    client, peer = asked(bench, service())
    peer.send(json.dumps({"error": error, "parameters": {"name": "x", "n": [1]}}).encode() + b"\0")
    assert client.reply() == {
        "error": "io.spawnd.ServiceError",
        "parameters": {"name": "web", "error": error, "parameters": {"name": "x", "n": [1]}},
    }


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ({"method": "a b"}, "method"),
        ({"method": ""}, "method"),
        ({"method": "a.b\n"}, "method"),
        ({"method": "a." + "b" * 300}, "method"),
        ({"method": 1}, "method"),
        ({"parameters": []}, "parameters"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": 1e10}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"more": True}, "more"),
    ],
)
def test_wrong_parameters(bench: Bench, service: MakeService, parameters: dict[str, Any], wrong: str) -> None:
    service()
    client = bench.connect()
    client.send(encode_call("io.spawnd.Call", {"name": "web", "method": "a.b.Do"} | parameters))
    reply = client.reply()
    assert reply == {"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": wrong}}


def test_parameters_that_grow_too_long_when_they_are_passed_on(bench: Bench, service: MakeService) -> None:
    """Forwarded messages have ASCII characters only."""
    service()
    client = bench.connect()
    text = "é" * (MAX_REQUEST // 4)
    client.send(f'{{"method":"io.spawnd.Call","parameters":{{"name":"web","method":"a.b","parameters":{{"x":"{text}"}}}}}}\0'.encode())
    assert client.reply()["parameters"] == {"parameter": "parameters"}


def test_whom_nobody_can_call(bench: Bench, service: MakeService) -> None:
    service()
    for name in ("nope", "w*"):
        nobody = {"name": name, "suggestion": None}
        assert ask(bench, name=name).reply() == {"error": "io.spawnd.NoSuchService", "parameters": nobody}
    assert ask(bench, name="mute").reply() == {"error": "io.spawnd.NoControl", "parameters": {"name": "mute"}}


@pytest.mark.parametrize("stale", [False, True])
def test_one_that_is_down(bench: Bench, service: MakeService, stale: bool, path: str) -> None:
    if stale:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
    reply = ask(bench).reply()
    assert reply == {"error": "io.spawnd.NotRunning", "parameters": {"name": "web", "state": "stopped"}}


def test_one_that_cannot_be_reached(bench: Bench, folder: str) -> None:
    control = Descriptor("stream", name="control", path=os.path.join(folder, "x" * 200))
    bench.define(Service("web", control=True, fd=(control,)))
    reply = ask(bench).reply()
    assert reply["error"] == "io.spawnd.Failed"
    assert reply["parameters"]["message"] == "cannot connect to the control socket of web: AF_UNIX path too long"


def test_one_that_nobody_serves_for_the_moment(bench: Bench, service: MakeService) -> None:
    """Between two failures: the call waits in the backlog."""
    web = service()
    client = ask(bench)
    bench.settle()
    bench.advance(9)
    assert client.is_silent()
    peer = web.accept()
    peer.call()
    peer.reply({})
    assert client.reply() == {"parameters": {"reply": {}}}


def test_one_that_is_given_up_with_calls_in_its_backlog(bench: Bench, service: MakeService, path: str) -> None:
    web = service()
    client = ask(bench)
    bench.settle()
    bench.core.event("web", machine.stop)
    bench.run_until(lambda: bench.core.units["web"].life.state is State.STOPPED)
    web.listener.close()
    assert client.reply() == {"error": "io.spawnd.NotRunning", "parameters": {"name": "web", "state": "stopped"}}


def test_a_full_backlog_is_tried_again(bench: Bench, service: MakeService, path: str) -> None:
    web = service(backlog=0)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(path)
        client = ask(bench)
        for _ in range(20):
            bench.advance(0.2)
        assert client.is_silent()
        web.accept()
        peer = web.accept()
        peer.call()
        peer.reply({})
        assert client.reply() == {"parameters": {"reply": {}}}


@pytest.mark.parametrize("accepts", ["full", "no", "silent", "half", "endless"])
def test_the_time_limit(bench: Bench, service: MakeService, path: str, accepts: str) -> None:
    web = service(backlog=0)
    with socket.socket(socket.AF_UNIX) as other:
        if accepts == "full":
            other.connect(path)
        client = ask(bench, timeout=2.5)
        bench.settle()
        if accepts not in ("full", "no"):
            peer = web.accept()
            peer.call()
            peer.send({"silent": b"", "half": b'{"parameters":', "endless": b" " * 1000}[accepts] or b"\n")
        bench.advance(2)
        assert client.is_silent()
        bench.advance(1)
        assert client.reply() == {"error": "io.spawnd.TimedOut", "parameters": {"name": "web", "timeout": 2.5}}


def test_the_time_limit_is_one_for_both_calls(bench: Bench, service: MakeService) -> None:
    client, peer = asked(bench, service(), method="Do", timeout=4)
    bench.advance(3)
    peer.reply({"interfaces": ["a.b"]})
    assert peer.call()["method"] == "a.b.Do"
    bench.advance(2)
    assert client.reply()["error"] == "io.spawnd.TimedOut"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"garbage\0", "not JSON"),
        (b"\0", "not JSON"),
        (b"\xff\xfe\0", "not JSON"),
        (b"[]\0", "not an object"),
        (b'{"parameters": []}\0', "'parameters' is not an object"),
        (b'{"parameters": {"x": NaN}}\0', "not JSON"),
        (b'{"parameters": {"x": 1e999}}\0', "not JSON"),
        (b'{"parameters": {"x": ' + b"9" * 5000 + b"}}\0", "not JSON"),
        (b'{"error": 1}\0', "'error' is not a name"),
        (b'{"error": ""}\0', "'error' is not a name"),
        (b'{"error": null}\0', "'error' is not a name"),
        (b'{"continues": 1}\0', "'continues' is not a boolean"),
        (b'{"continues": true}\0', "more than one reply"),
        (b'{"parameters": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}\0", "nested too deeply"),
        (b" " * (MAX_REPLY + 1), "longer than"),
        (b'{"parameters": {"x": "' + b"y" * MAX_REPLY + b'"}}\0', "longer than"),
    ],
)
def test_what_is_no_reply(bench: Bench, service: MakeService, data: bytes, message: str) -> None:
    client, peer = asked(bench, service())
    try:
        peer.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # enough was seen
    reply = client.reply()
    assert reply["error"] == "io.spawnd.BadReply"
    assert message in reply["parameters"]["message"]
    peer.wait_closed()


def nested(depth: int) -> bytes:
    return b'{"parameters":{"x":' + b"[" * depth + b"]" * depth + b"}}"


def deepest() -> int:
    """How deeply nested a reply can be and still be read; that is an interpreter's own affair."""
    good, bad = 0, 400_000
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            parse_reply(nested(middle))
            good = middle
        except Malformed:
            bad = middle
    return good


def test_replies_that_are_nested_as_deeply_as_can_be_read(bench: Bench, service: MakeService) -> None:
    """They are read at another depth of the stack than they are written: each is passed on, or is a bad reply."""
    web = service()
    limit = deepest()

    def error_of(depth: int) -> str:
        client, peer = asked(bench, web)
        peer.send(nested(depth) + b"\0")
        return str(client.reply().get("error", ""))

    assert error_of(limit // 2) == ""
    assert error_of(limit * 2) == "io.spawnd.BadReply"
    assert {error_of(depth) for depth in range(limit - 60, limit + 60, 5)} <= {"", "io.spawnd.BadReply"}


@pytest.mark.parametrize("data", [b"", b'{"parameters":', b"\n"])
def test_a_connection_that_is_lost(bench: Bench, service: MakeService, data: bytes) -> None:
    client, peer = asked(bench, service())
    if data:
        peer.send(data)
    peer.sock.close()
    assert client.reply() == {"error": "io.spawnd.ConnectionLost", "parameters": {"name": "web"}}


def test_a_reply_before_the_call_was_read(bench: Bench, service: MakeService) -> None:
    """A service that refuses may close after its reason, with the call unread."""
    web = service()
    client = ask(bench, parameters={"x": "y" * 500_000})
    peer = web.accept()
    peer.send(b'{"error": "com.example.Busy"}\0')
    peer.sock.close()
    assert client.reply()["parameters"]["error"] == "com.example.Busy"


@pytest.mark.parametrize(("text", "flags"), [(b'{"parameters": {}}\0', 0), (b"{", socket.MSG_OOB)])
def test_descriptors_in_a_reply(bench: Bench, service: MakeService, text: bytes, flags: int) -> None:
    client, peer = asked(bench, service())
    with lingering() as sock:
        pass_on(peer.sock, sock, text, flags)
        reply = client.reply()
        assert reply["error"] == "io.spawnd.BadReply"
        assert reply["parameters"]["message"] == "descriptors are not taken"
        bench.reaper.settle()


def test_a_caller_that_hangs_up(bench: Bench, service: MakeService) -> None:
    client, peer = asked(bench, service())
    client.sock.close()
    peer.wait_closed()


def test_a_caller_that_hangs_up_while_the_backlog_is_full(bench: Bench, service: MakeService, path: str) -> None:
    service(backlog=0)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(path)
        client = ask(bench)
        bench.settle()
        client.sock.close()
        bench.run_until(lambda: not bench.server._clients)


def test_a_call_without_a_reply(bench: Bench, service: MakeService) -> None:
    web = service()
    client = ask(bench, oneway=True, parameters={"x": "y" * 500_000})
    peer = web.accept()
    assert peer.call()["oneway"] is True
    peer.wait_closed()
    client.call("io.spawnd.GetVersion")
    assert "version" in client.reply()["parameters"]


def test_a_call_is_refused_where_too_many_closes_hang(
    bench: Bench, service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service()
    monkeypatch.setattr(safe_close, "MOST", 0)
    reply = bench.call(f"{OWN}.Call", name="web", method="a.b.Do", parameters={})
    assert reply["error"] == "io.spawnd.Failed"
    assert "hang while they are closed" in reply["parameters"]["message"]


# a spawnd that is executed anew


class NoSender:
    """A connection that takes down what it is told."""

    has_room = has_room_for_channel = True

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def in_turn(self, action: Callable[[], None]) -> None:
        raise AssertionError

    def discard_channel(self, sock: socket.socket) -> None:
        sock.close()

    def answered(self, ends: bool) -> None:
        pass


def test_a_call_that_an_earlier_life_has_sent_is_not_sent_again(bench: Bench, service: MakeService) -> None:
    service()
    call = Call(f"{OWN}.Call", {"name": "web", "method": "a.b.Do"})
    pending = PendingCall(call, Credentials(1, 0, 0), bench.loop, NoSender())
    verb.run(pending, bench.core)
    assert pending.memo["sent"] is True
    pending.cancel()
    again = PendingCall(call, Credentials(1, 0, 0), bench.loop, NoSender())
    again.memo = pending.memo
    with pytest.raises(ConnectionLost):
        verb.run(again, bench.core)


def test_a_call_that_waited_for_room_goes_on_within_its_limit(bench: Bench, service: MakeService, path: str) -> None:
    service(backlog=0)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(path)
        call = Call(f"{OWN}.Call", {"name": "web", "method": "a.b.Do"})
        pending = PendingCall(call, Credentials(1, 0, 0), bench.loop, NoSender())
        verb.run(pending, bench.core)
        assert "sent" not in pending.memo
        pending.cancel()
        bench.advance(8)
        sender = NoSender()
        again = PendingCall(call, Credentials(1, 0, 0), bench.loop, sender)
        again.memo = pending.memo
        verb.run(again, bench.core)
        bench.advance(3)
        bench.run_until(lambda: bool(sender.sent))
        assert b"io.spawnd.TimedOut" in sender.sent[0]
