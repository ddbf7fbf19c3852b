"""A problem or notice is one line that a file cannot forge."""

from __future__ import annotations

import pytest

from supervisor.definitions.problems import Problems
from supervisor.printable import printable
from tests.unit.definitions.loading import Files, load_paths

SERVICE = 'x = { exec = "/x" }\n'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größer … 'x\\y'", "plain, größer … 'x\\y'"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31m\x7f\x9b", r"\x1b[31m\x7f\x9b"),
        ("\u2028\u202e\udcff", r"\u2028\u202e\xff"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_print_cannot_forge_a_line(files: Files) -> None:
    (notice,) = files.load(f'print("a\\n/etc/x.lua:1: \\27[2J", "\\255")\n{SERVICE}').notices
    assert notice.endswith(r"a.lua:1: print: a\n/etc/x.lua:1: \x1b[2J \xff")


@pytest.mark.parametrize(
    "text",
    [
        'error("a\\27b", 0)',
        'error("a\\rb")',
        'x = { exec = "/x", ["a\\27\\nb"] = 1 }',
        'x = { exec = "/x", env = { ["a\\27\\n=b"] = 1 } }',
        'x = { exec = "/x", limits = { ["a\\n"] = 1 } }',
        'x = { exec = "/x", fd = { file("/x", { ["a\\n"] = 1 }) } }',
        'x = { exec = "/x", depends = { "a\\n" } }',
        '_G["a\\27b\\n"] = { exec = "/x" }',
        'x = { exec = _G["a\\27b\\n"] }',
        '_SUPERVISOR = { ["a\\n"] = 1 }',
    ],
)
def test_problems_that_quote_the_file(files: Files, text: str) -> None:
    for problem in files.problems(text):
        assert problem.isprintable()
        assert problem.startswith("a.lua:1: ")


def test_the_name_of_a_file(files: Files) -> None:
    files.write("x = 3", "a\n\x1b.lua")
    (problem,) = files.problems_of(lambda: load_paths(files.folder))
    assert problem.startswith(r"a\n\x1b.lua:1: 'x' is 3")


def test_what_concerns_a_whole_file_is_on_its_first_line() -> None:
    problems = Problems()
    problems.add("a.lua", 0, "x")
    assert problems.texts() == ["a.lua:1: x"]
