"""Replies of somebody who is no spawnd: an error at most, and nothing that commands a terminal or a shell."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.control.verbs.introspection import OWN, description
from supervisor.ctl.client import Client
from supervisor.ctl.completion import MOST, candidates, complete
from supervisor.ctl.errors import ConnectionLost, ExitCode, MalformedReply
from supervisor.ctl.graph import dot
from supervisor.ctl.verbs import VERBS
from supervisor.varlink.interface import Array, Dictionary, Enum, Interface, Maybe, Named, Struct, Type, parse
from tests.unit.ctl.hostile import answering

Capture = pytest.CaptureFixture[str]
Spawnctl = Callable[..., int]

EVIL = '\x1b]0;x\x07\n$(touch evil); `touch evil` "\\\x9b31m\u202e\ud800'
ARGUMENTS = {
    "status": ["a"], "why": ["a"], "start": ["a"], "stop": ["a"], "restart": ["a"], "sleep": ["a"],
    "reload": ["a"],
    "reopen": ["a"], "reset": ["a"],
    "signal": ["TERM", "a"], "kill": ["a", "1"], "show": ["a"], "fds": ["a"], "logs": ["a"], "call": ["a", "M"],
    "shutdown": ["--no-wait"],
}  # fmt: skip
SPARED = ("logs", "help", "import")  # a log is raw where it is no terminal, and the others ask nobody
COMMANDS = [
    *([verb, *ARGUMENTS.get(verb, [])] for verb in VERBS if verb not in SPARED),
    *(["graph", option] for option in ("--dot", "--order", "--times", "--after")),
    ["list", "--all"], ["show", "--all", "a"], ["accounting", "--csv"], ["call", "--more", "a", "M"],
]  # fmt: skip
MALFORMED = {
    "no JSON": b"hello",
    "no UTF-8": b'{"parameters": "\xff"}',
    "a number": b"5",
    "an array": b"[]",
    "nothing": b"null",
    "no object of parameters": b'{"parameters": [1]}',
    "no parameters": b"{}",
    "other parameters": b'{"parameters": {"services": 5, "nodes": 5, "changes": {}, "results": "x", "reply": []}}',
    "rows of numbers": b'{"parameters": {"services": [5], "nodes": [5], "edges": [], "changes": [5], "results": [5]}}',
    "rows of nothing": b'{"parameters": {"services": [{}], "nodes": [{}], "edges": [{}], "results": [{}]}}',
    "depth": b'{"parameters": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "an error that is none": b'{"error": {"x": 1}, "parameters": {"name": 5}}',
    "an error without what it needs": b'{"error": "io.spawnd.TimedOut"}',
    "an error with a list": b'{"error": "io.spawnd.Needed", "parameters": []}',
}
# for a method whose reply needs nothing of what is wrong with it
HARMLESS = {"nothing", "no parameters", "other parameters", "rows of numbers", "rows of nothing"}


@pytest.fixture(scope="module")
def interface() -> Interface:
    return parse(description(OWN))


def evil(interface: Interface, kind: Type) -> Any:
    """A value of the type, every text of which means no good."""
    match kind:
        case Named("bool"):
            return True
        case Named("int" | "float"):
            return 7
        case Named("string"):
            return EVIL
        case Named("object"):
            return {"groups": [], "all": {}}
        case Named(name):
            return evil(interface, interface.types[name])
        case Maybe(inner):
            return evil(interface, inner)
        case Array(inner):
            return [evil(interface, inner)]
        case Dictionary(inner):
            return {EVIL: evil(interface, inner)}
        case Enum():
            return EVIL
        case Struct(fields):
            return {name: evil(interface, inner) for name, inner in fields.items()}


def encoded(parameters: dict[str, Any]) -> bytes:
    return json.dumps({"parameters": parameters}).encode() + b"\0"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_output_commands_a_terminal(
    interface: Interface, spawnctl: Spawnctl, path: str, capsys: Capture, command: list[str]
) -> None:
    everything: dict[str, Any] = {}
    for _parameters, result in interface.methods.values():
        everything |= evil(interface, result)
    with answering(path, encoded(everything | {"at": "2026-01-01T00:00:00Z"})):
        spawnctl(*command)
    said = capsys.readouterr()
    assert not [char for char in said.out + said.err if not char.isprintable() and char != "\n"]


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_malformed_reply_is_an_error(
    spawnctl: Spawnctl, path: str, capsys: Capture, kind: str, command: list[str]
) -> None:
    with answering(path, MALFORMED[kind] + b"\0"):
        code = spawnctl(*command)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    if code == ExitCode.DONE:
        assert kind in HARMLESS, said
    else:
        assert said.err.startswith("spawnctl: "), said


@pytest.mark.parametrize("more", [False, True])
def test_a_reply_without_an_end(path: str, monkeypatch: pytest.MonkeyPatch, more: bool) -> None:
    monkeypatch.setattr("supervisor.ctl.client.LARGEST", 1 << 20)
    with answering(path, b"", endless=b"x" * 65536):
        client = Client(path)
        with pytest.raises(ConnectionLost, match="the reply has more than"):
            next(client.stream("List")) if more else client.call("List")
        client.close()


def test_names_that_could_be_commands_are_not_offered(path: str, capsys: Capture) -> None:
    bad = [EVIL, "a b", "a\nb", "$(x)", "`x`", "a;b", "-x", "", "a" * 65, "ä", "a\tb", "~", "*", 5, None, ["a"]]
    nodes = [{"name": name, "state": "running", "internal": False} for name in [*bad, "web", "netns@blue"]]
    with answering(path, encoded({"nodes": [5, [], {}, *nodes, {"name": "odd", "state": EVIL}]})):
        assert {word for word, _ in candidates(["--socket", path, "start", ""])} == {"web", "netns@blue", "odd", "all"}
        assert complete(["--socket", path, "start", ""]) == 0
    said = capsys.readouterr()
    assert "touch" not in "".join(line.partition("\t")[0] for line in said.out.splitlines())
    assert not [char for char in said.out if not char.isprintable() and char not in "\n\t"]


@pytest.mark.parametrize("kind", MALFORMED)
def test_completion_says_nothing_of_a_malformed_reply(path: str, capsys: Capture, kind: str) -> None:
    with answering(path, MALFORMED[kind] + b"\0"):
        assert complete(["--socket", path, "start", ""]) == 0
    assert capsys.readouterr().err == ""


def test_completion_offers_no_endless_list(path: str) -> None:
    nodes = [{"name": f"a{number}"} for number in range(MOST + 5)]
    with answering(path, encoded({"nodes": nodes})):
        assert len(list(candidates(["--socket", path, "status", ""]))) == MOST + 1


def test_completion_does_not_wait_for_a_slow_end(path: str) -> None:
    """One byte after the other would have put off a limit for each read."""
    with answering(path, b"", endless=b" "):
        assert complete(["--socket", path, "start", ""]) == 0


def test_graphviz_takes_every_name_as_a_name() -> None:
    lines = list(dot(['a"; evil "b', "c\\"], [('a"; evil "b', "c\\", "depends")]))
    assert r'  "a\"; evil \"b";' in lines
    assert r'  "c\\" -> "a\"; evil \"b";' in lines


def test_the_cause_is_told(path: str, spawnctl: Spawnctl, capsys: Capture) -> None:
    other = Client(f"{path}2")
    with answering(path, b'{"parameters": {}}\0'):
        assert spawnctl("graph", "--dot") == ExitCode.FAILED
        with pytest.raises(MalformedReply, match="it is not an object"), answering(f"{path}2", b"[]\0"):
            other.call("Graph")
        other.close()
    said = capsys.readouterr().err
    assert said == f"spawnctl: cannot understand the reply of the supervisor at {path!r} to Graph: KeyError: 'nodes'\n"
