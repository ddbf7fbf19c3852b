"""A worker's answers, without a socket."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from typing import Any

import pytest

from supervisor import __version__
from supervisor.varlink.messages import Call, Framer, Malformed, encode_call, encode_error
from tests.unit.control.interface import Reader
from tests.unit.workers.greeter import INTERFACE, greet, make_control
from workers.runtime.control import Control

CONTROL = make_control()


def answer(method: str, parameters: dict[str, object] | None = None, **flags: bool) -> dict[str, Any]:
    message, ends = CONTROL.answer(Call(method, parameters or {}, **flags))
    assert not ends
    value: dict[str, Any] = json.loads(message[:-1])
    return value


def test_a_call() -> None:
    assert answer("io.spawnd.greeter.Greet", {"name": "é"}) == {"parameters": {"text": "Hello é."}}
    reply = answer("io.spawnd.greeter.Greet", {"name": "x", "times": 2}, more=True)
    assert reply == {"parameters": {"text": "Hello x. Hello x."}}


def test_an_error_of_its_own() -> None:
    reply = answer("io.spawnd.greeter.Greet", {"name": "you there"})
    assert reply == {"error": "io.spawnd.greeter.TooRude", "parameters": {"name": "you there"}}


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ({}, "name"),
        ({"name": 1}, "name"),
        ({"name": None}, "name"),
        ({"name": "x", "times": "1"}, "times"),
        ({"name": "x", "times": True}, "times"),
        ({"name": "x", "time": 1}, "time"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, object], wrong: str) -> None:
    reply = answer("io.spawnd.greeter.Greet", parameters)
    assert reply == {"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": wrong}}


@pytest.mark.parametrize(
    ("method", "error", "parameters"),
    [
        ("io.spawnd.greeter.Nope", "MethodNotFound", {"method": "io.spawnd.greeter.Nope"}),
        ("org.varlink.service.Nope", "MethodNotFound", {"method": "org.varlink.service.Nope"}),
        ("io.spawnd.List", "InterfaceNotFound", {"interface": "io.spawnd"}),
        ("Greet", "InterfaceNotFound", {"interface": ""}),
        ("", "InterfaceNotFound", {"interface": ""}),
    ],
)
def test_unknown_methods(method: str, error: str, parameters: dict[str, object]) -> None:
    assert answer(method) == {"error": f"org.varlink.service.{error}", "parameters": parameters}


def test_introspection() -> None:
    info = answer("org.varlink.service.GetInfo")["parameters"]
    assert (info["product"], info["version"]) == ("greeter", __version__)
    assert info["interfaces"] == ["io.spawnd.greeter", "org.varlink.service"]
    for name in info["interfaces"]:
        reply = answer("org.varlink.service.GetInterfaceDescription", {"interface": name})
        assert Reader(reply["parameters"]["description"]).read().name == name
    reply = answer("org.varlink.service.GetInterfaceDescription", {"interface": "a.b"})
    assert reply == {"error": "org.varlink.service.InterfaceNotFound", "parameters": {"interface": "a.b"}}


@pytest.mark.parametrize(
    ("how", "message"), [("raise", "'broken'"), ("reply", "the reply is not as described: more")]
)
def test_mistakes_of_the_worker_are_answered_and_logged(
    how: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    reply = answer("io.spawnd.greeter.Break", {"how": how})
    assert reply == {"error": "io.spawnd.Failed", "parameters": {"message": f"unexpected error: {message}"}}
    assert "unexpected error in io.spawnd.greeter.Break" in caplog.text


def test_flags() -> None:
    reply = answer("io.spawnd.greeter.Pid", upgrade=True)
    assert reply == {"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": "upgrade"}}
    assert CONTROL.answer_message(b'{"method":"io.spawnd.greeter.Pid","oneway":true}') == (b"", False)
    assert CONTROL.answer_message(b"nonsense")[1] is True


def test_what_is_described_and_what_is_written_are_the_same() -> None:
    with pytest.raises(ValueError, match=r"cannot serve io\.spawnd\.greeter: .*: Break, Nope, Pid"):
        Control("greeter", INTERFACE, {"Greet": greet, "Nope": greet})


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that a worker on asyncio has to do for one connection."""
    framer = Framer()
    ends = False
    while not ends and (data := await reader.read(65536)):
        framer.feed(data)
        try:
            while not ends and (message := framer.take()) is not None:
                reply, ends = CONTROL.answer_message(message)
                writer.write(reply)
        except Malformed as error:
            writer.write(encode_error(error))
            ends = True
        await writer.drain()
    writer.close()


def test_on_a_loop_of_another_kind() -> None:
    """Nothing of it is bound to the project's own loop."""

    async def talk(path: str) -> list[dict[str, Any]]:
        server = await asyncio.start_unix_server(serve, path)
        reader, writer = await asyncio.open_unix_connection(path)
        calls = [Call("io.spawnd.greeter.Greet", {"name": name}) for name in ("a", "b")]
        writer.write(b"".join(map(encode_call, calls)) + b"nonsense\0")
        replies = (await asyncio.wait_for(reader.read(), 60)).split(b"\0")
        writer.close()
        server.close()
        await server.wait_closed()
        return [json.loads(reply) for reply in replies[:-1]]

    with tempfile.TemporaryDirectory(prefix="ctl") as folder:
        first, second, error = asyncio.run(talk(os.path.join(folder, "control")))
    assert (first["parameters"]["text"], second["parameters"]["text"]) == ("Hello a.", "Hello b.")
    assert error["error"] == "io.spawnd.Malformed"
