"""Bytes of output as lines of a reply."""

from __future__ import annotations

import pytest

from supervisor.control.output import reply_of, unfinished
from supervisor.log.ring import Piece, Position


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
