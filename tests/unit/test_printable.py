"""Escapes for what a terminal, a log or a process title cannot take."""

from __future__ import annotations

import os

import pytest

from supervisor.printable import encodable, printable, quoted

LATIN = os.fsdecode(b"/b\xfc")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße", "Grüße"),
        ("a\nb\x1b", r"a\nb\x1b"),
        ("\u202e", r"\u202e"),
        (LATIN, r"/b\xfc"),
        ("\ud800", r"\ud800"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_only_what_utf8_cannot_encode_is_escaped() -> None:
    assert encodable(f"ü\n\t{LATIN}") == "ü\n\t/b\\xfc"
    assert encodable("ü\x1b") == "ü\x1b"


@pytest.mark.parametrize("path", ["/a", "/ü b", "/it's", "/a\n", "/a\\udcfc"])
def test_a_path_is_quoted_as_by_repr(path: str) -> None:
    assert quoted(path) == repr(path)


def test_a_path_that_is_not_utf8_is_quoted_with_its_bytes() -> None:
    assert quoted(LATIN) == r"'/b\xfc'"
    assert quoted(f"/it's\n{LATIN}") == r'''"/it's\n/b\xfc"'''
