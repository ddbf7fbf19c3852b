"""A defect of the evaluation itself costs one service or one file its result, not the operator all others."""

from __future__ import annotations

import os

import pytest

from supervisor.definitions import evaluate, services
from supervisor.definitions.databases import Accounts
from supervisor.definitions.files import Files as Reader
from tests.unit.definitions.loading import Files, load_paths

REPORTED = "internal error: RuntimeError: two\\nlines (test_internal_errors.py:"


def fail(*_: object) -> None:
    raise RuntimeError("two\nlines")


def test_in_one_service(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accounts, "user", fail)
    problems = files.problems(
        'a = { exec = "/a",\nuser = "root" }\nb = { exec = "b" }\nc = { exec = "/c", depends = "a" }\n'
    )
    assert len(problems) == 2
    assert problems[0].startswith(f"a.lua:1: a: {REPORTED}")
    assert problems[1] == "a.lua:3: b: exec: 'b' is not an absolute path"


@pytest.mark.parametrize("text", ['_DEFAULT = { user = "root" }', '_SUPERVISOR = { control_group = "root" }'])
def test_in_one_file(files: Files, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(Accounts, "user", fail)
    monkeypatch.setattr(Accounts, "group", fail)
    files.write(text, "1.lua")
    files.write('b = { exec = "b", depends = "a" }', "2.lua")
    problems = files.problems_of(lambda: load_paths(files.folder))
    assert len(problems) == 2
    assert problems[0].startswith(f"1.lua:1: {REPORTED}")
    assert problems[1] == "2.lua:1: b: exec: 'b' is not an absolute path"


def test_while_a_file_is_read(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "_read", fail)
    (problem,) = files.problems('a = { exec = "/a" }')
    assert problem.startswith(f"a.lua:1: {REPORTED}")


def test_in_what_concerns_several_services(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "check_order", fail)
    call = 'exec = "/a", fd = { udp("127.0.0.1", 1) }'
    problems = files.problems(f"a = {{ {call} }}\nb = {{ {call} }}")
    assert len(problems) == 2
    assert problems[0].startswith(f"a.lua:1: {REPORTED}")
    assert "b: fd[1]: udp 127.0.0.1:1 is taken" in problems[1]


def test_it_names_where_it_happened(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_check", None)
    (problem,) = files.problems('a = { exec = "/a" }')
    assert problem.startswith("a.lua:1: a: internal error: TypeError: ")
    assert f"({os.path.basename(services.__file__)}:" in problem


def test_more_services_than_there_may_be(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MAX_SERVICES", 3)
    text = "".join(f'{{0}}{number} = {{{{ exec = "/a", depends = "z" }}}}\n' for number in range(2))
    files.write(text.format("a", "a"), "1.lua")
    files.write(text.format("b", "b"), "2.lua")
    files.write("c = 3", "3.lua")
    message = "all definitions together have more than 10000 services, of which this is the next"
    assert files.problems_of(lambda: load_paths(files.folder)) == [
        f"2.lua:2: b1: cannot use: {message}",
        "3.lua:1: was not evaluated, as those before it were too much",
    ]


def test_as_many_services_as_there_may_be(files: Files) -> None:
    text = 'for i = 1, {} do _G["a" .. i] = {{ exec = "/a" }} end'
    assert len(files.load(text.format(evaluate.MAX_SERVICES)).services) == 10_000
    (problem,) = files.problems(text.format(evaluate.MAX_SERVICES + 1))
    assert problem.startswith("a.lua:1: a10001: cannot use: ")
