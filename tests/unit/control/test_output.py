"""Bytes of output as lines of a reply."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.control.output import INTERVAL, reply_of, unfinished
from supervisor.definitions.service import Service
from supervisor.log.ring import SIZE, START, Piece, Position
from supervisor.varlink.connection import PATIENCE
from tests.unit.control.bench import Bench, Client, resume


@pytest.mark.parametrize(
    ("data", "lines", "partial"),
    [
        (b"", [], False),
        (b"one\n", ["one"], False),
        (b"one\ntwo", ["one", "two"], True),
        (b"\n", [""], False),
        (b"\n\n", ["", ""], False),
        (b"dos\r\nbar 50%\r", ["dos", "bar 50%\r"], True),
        (b"a\x0bb\xe2\x80\xa8c\n", ["a\x0bb\u2028c"], False),
        (b"\xff\n", ["\\xff"], False),
    ],
)
def test_lines(data: bytes, lines: list[str], partial: bool) -> None:
    reply = reply_of(Piece(data, 2, Position(9, 9)))
    assert reply == {"journal": False, "lines": lines, "lost": 2, "partial": partial}


@pytest.mark.parametrize(("count", "lines"), [(0, []), (1, ["two"]), (2, ["one", "two"]), (9, ["one", "two"])])
def test_the_last_lines(count: int, lines: list[str]) -> None:
    reply = reply_of(Piece(b"one\ntwo\n", 5, Position(9, 9)), count)
    assert reply["lines"] == lines
    assert reply["lost"] == 0, "who asks for the last lines has lost none"


@pytest.mark.parametrize("text", ["", "a", "ä", "€", "😀", "aä€😀"])
def test_characters_that_are_not_all_there(text: str) -> None:
    data = text.encode()
    assert unfinished(data) == 0
    for end in range(len(data)):
        rest = unfinished(data[:end])
        assert rest == len(data[:end]) - len(data[:end].decode(errors="ignore").encode())


def test_bytes_that_are_no_characters_are_not_waited_for() -> None:
    assert unfinished(b"\x80\x80\x80\x80") == 0
    assert unfinished(b"\xff\xff\xff") in (1, 0)
    assert unfinished(b"a\xe2\x82\xff") in (0, 1)


def test_a_line_of_which_the_beginning_is_not_kept_is_marked() -> None:
    reply = reply_of(Piece(b"the end\nnext\n", 0, Position(9, 9), cut=True))
    assert reply["lines"] == ["…the end", "next"]


LINE = b"%07d.......\n"  # 15 bytes


def follow(bench: Bench, count: int = 20) -> Client:
    client = bench.connect()
    client.stream("io.spawnd.Logs", name="web", count=count)
    return client


def next_of(client: Client) -> dict[str, Any]:
    reply = client.reply()
    assert reply["continues"] is True
    parameters: dict[str, Any] = reply["parameters"]
    return parameters


def test_the_last_lines_then_what_follows(bench: Bench) -> None:
    bench.core.write("web", b"one\ntwo\n")
    client = follow(bench, count=1)
    assert next_of(client) == {"journal": False, "lines": ["two"], "lost": 0, "partial": False}
    bench.core.write("web", b"three\nfo")
    assert next_of(client) == {"journal": False, "lines": ["three", "fo"], "lost": 0, "partial": True}
    bench.core.write("web", b"ur\n")
    assert next_of(client)["lines"] == ["ur"]
    bench.advance(5 * INTERVAL)
    assert client.is_silent()


def test_nothing_yet(bench: Bench) -> None:
    client = follow(bench)
    assert next_of(client)["lines"] == []
    bench.core.write("web", b"first\n")
    assert next_of(client)["lines"] == ["first"]


def test_characters_are_not_torn(bench: Bench) -> None:
    client = follow(bench)
    next_of(client)
    first, rest = "grün €\n".encode()[:8], "grün €\n".encode()[8:]
    bench.core.write("web", first)
    assert next_of(client)["lines"] == ["grün "]
    bench.core.write("web", rest)
    assert next_of(client)["lines"] == ["€"]


def test_it_goes_on_over_restarts(bench: Bench) -> None:
    client = follow(bench)
    next_of(client)
    for _ in range(2):
        bench.core.start(["web"])
        bench.core.stop(["web"])
    bench.core.write("web", b"back\n")
    assert next_of(client)["lines"] == ["back"]


def test_it_ends_when_the_service_is_removed(bench: Bench) -> None:
    client = follow(bench)
    next_of(client)
    bench.core.write("web", b"last words\n")
    bench.core.remove("web")
    assert next_of(client)["lines"] == ["last words"]
    assert client.reply() == {"error": "io.spawnd.NoSuchService", "parameters": {"name": "web", "suggestion": None}}
    client.call("io.spawnd.GetVersion")
    assert "version" in client.reply()["parameters"], "the connection stands"


def test_it_ends_when_the_log_is_taken_away(bench: Bench) -> None:
    client = follow(bench)
    next_of(client)

    def no_output(name: str, position: Position = START) -> Piece | None:
        raise LookupError(name)

    bench.core.output = no_output  # type: ignore[method-assign]
    assert client.reply() == {"error": "io.spawnd.NoLog", "parameters": {"name": "web"}}


def test_the_journal_has_it(bench: Bench) -> None:
    bench.core.journal = True
    client = follow(bench)
    assert client.reply() == {"parameters": {"journal": True, "lines": [], "lost": 0, "partial": False}}
    bench.settle()
    assert not bench.core.observers


@pytest.mark.parametrize(("name", "error"), [("nope", "NoSuchService"), ("mute", "NoLog")])
def test_what_cannot_be_followed(bench: Bench, name: str, error: str) -> None:
    bench.define(Service("mute"))
    client = bench.connect()
    client.stream("io.spawnd.Logs", name=name)
    assert client.reply()["error"] == f"io.spawnd.{error}"


def test_nobody_looks_when_nobody_follows(bench: Bench) -> None:
    client = follow(bench)
    next_of(client)
    client.sock.close()
    bench.run_until(lambda: not bench.server._clients)
    assert bench.is_idle(), "a timer is left"
    assert not bench.core.observers


def test_a_slow_reader_loses_lines_is_told_how_many_and_costs_no_memory(bench: Bench) -> None:
    client = follow(bench)
    next_of(client)
    pending = bench.pending()
    written = 0

    def flood(size: int) -> None:
        nonlocal written
        lines = size // len(LINE % 0)
        bench.core.write("web", b"".join(LINE % (written + number) for number in range(lines)))
        written += lines

    while pending.has_room:
        flood(SIZE // 2)
        bench.advance(INTERVAL)
    connection = bench.streaming()
    waiting = len(connection._output)
    for _ in range(100):
        flood(SIZE)
        bench.advance(INTERVAL)
    assert len(connection._output) == waiting, "what is not read costs nothing more"
    assert bench.is_idle(), "nobody looks while there is no room"
    bench.advance(PATIENCE * 2)
    assert not pending.ended, "who reads slowly is waited for"
    seen, lost = list[str](), 0
    while len(seen) + lost < written:
        reply = next_of(client)
        if reply["lost"]:
            assert int(reply["lines"][0][:7]) == int(seen[-1][:7]) + 1 + reply["lost"]
        seen += reply["lines"]
        lost += reply["lost"]
    assert lost > written / 2
    assert int(seen[-1][:7]) == written - 1
    bench.core.write("web", b"in time again\n")
    assert next_of(client) == {"journal": False, "lines": ["in time again"], "lost": 0, "partial": False}


def test_it_goes_on_from_its_memo(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.core.write("web", b"one\n")
    client = follow(bench)
    next_of(client)
    memo = bench.pending().memo
    client.sock.close()
    bench.run_until(lambda: not bench.core.observers)
    bench.core.write("web", b"two\n")
    assert memo == {"position": [4, 1]}
    client = bench.connect()
    resume(monkeypatch, "io.spawnd.Logs", memo)
    client.stream("io.spawnd.Logs", name="web", count=20)
    assert next_of(client)["lines"] == ["two"]
    assert bench.pending().memo == {"position": [8, 2]}


def test_one_reply_where_none_can_follow(bench: Bench) -> None:
    bench.core.write("web", b"one\n")
    assert bench.call("io.spawnd.Logs", name="web")["parameters"]["lines"] == ["one"]
    assert not bench.core.observers
