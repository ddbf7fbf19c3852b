"""Lua, comments and names of a result, and its check."""

from __future__ import annotations

from pathlib import Path

import pytest

from importer.checked import check
from importer.lua_text import file_text
from importer.result import Comment, Definition, Finding, Function, Outcome, OutputFile, SourceError, service_name
from importer.sources import LARGEST, read_source
from importer.values import Code, call, value_text


def test_values() -> None:
    assert value_text(["a", 1, True, 0.5]) == '{ "a", 1, true, 0.5 }'
    assert value_text({"a b": Code("log()"), "nofile": 64}) == '{ ["a b"] = log(), nofile = 64 }'
    assert call("tcp", "0.0.0.0", 69, backlog=5).text == 'tcp("0.0.0.0", 69, { backlog = 5 })'
    assert call("log").text == "log()"
    assert value_text(["x" * 50, "y" * 50]).count("\n") == 3


def test_a_file_has_tables_then_modules_and_comments_where_they_belong() -> None:
    web = Definition("web@1", ["web"])
    web.set("exec", "/usr/sbin/web")
    web.note(Finding("/x/web.service", 12, "ProtectSystem=strict", Outcome.LEFT_OUT).comment())
    web.set("stdout", call("log"))
    module = Definition("job", functions=[Function("start", ('return fsys.mkdir("/run/job")',))])
    module.set("user", "root")
    text = file_text(OutputFile("web.lua", [module, web], ["from web.service"]))
    assert text == (
        "-- from web.service\n\n"
        '-- web\n_G["web@1"] = {\n  exec = "/usr/sbin/web",\n'
        "  -- ProtectSystem=strict: not carried over (web.service:12)\n  stdout = log(),\n}\n\n"
        'module("job", package.seeall)\nuser = "root"\n\n'
        'function start()\n  return fsys.mkdir("/run/job")\nend\n'
    )
    found = check({"web.lua": text})
    assert found.problems == []
    assert found.services == 2


def test_a_key_that_is_set_again_keeps_its_place() -> None:
    web = Definition("web")
    web.set("a", 1)
    web.note("x")
    web.set("a", 2)
    assert web.keys == {"a": 2}
    assert web.entries[1:] == [Comment("x")]
    web.remove("a")
    assert web.keys == {}


@pytest.mark.parametrize(
    ("outcome", "text", "comment"),
    [
        (Outcome.LEFT_OUT, "", "A=b: not carried over (f:3)"),
        (Outcome.LEFT_OUT, "no sandbox", "A=b: not carried over, no sandbox (f:3)"),
        (Outcome.APPROXIMATE, "waits double", "A=b: waits double (f:3)"),
        (Outcome.APPROXIMATE, "", "A=b: approximate (f:3)"),
    ],
)
def test_comments(outcome: Outcome, text: str, comment: str) -> None:
    assert Finding("/etc/f", 3, "A=b", outcome, text).comment() == comment


def test_a_comment_stays_on_its_line() -> None:
    hostile = Finding("f", 1, "A=]]\r\nos.exit()\x1b[2J" + "x" * 99, Outcome.LEFT_OUT).comment()
    definition = Definition("a")
    definition.set("exec", "/bin/true")
    definition.note(hostile)
    text = file_text(OutputFile("a.lua", [definition]))
    assert len(text.splitlines()) == 4
    assert check({"a.lua": text}).problems == []


@pytest.mark.parametrize(
    ("given", "name"),
    [("web", "web"), ("a b/c", "a_b_c"), ("-x", "x"), ("", "service"), ("log", "log_service"), ("dup", "dup_2")],
)
def test_names_of_services_are_legal(given: str, name: str) -> None:
    assert service_name(given, {"dup"}) == name


def test_names_of_services_are_short_enough_and_differ() -> None:
    first = service_name("x" * 99)
    assert len(first) == 64
    assert service_name("x" * 99, {first}) == "x" * 60 + "_2"


def test_a_problem_of_the_check_names_the_file() -> None:
    found = check({"a.lua": 'a = { exec = "/bin/true", umaks = 1 }\n'})
    assert found.problems == ["a.lua:1: a: unknown key 'umaks', did you mean 'umask'?"]


def test_an_unknown_user_is_a_notice() -> None:
    found = check({"a.lua": 'a = { exec = "/bin/true", user = "nobody-knows" }\n'})
    assert found.problems == []
    assert any("nobody-knows" in text for text in found.notices)


@pytest.mark.parametrize(
    ("data", "line", "text"),
    [(b"a\nb\xff", 2, "UTF-8"), (b"a\n\n\0", 3, "NUL"), (b"x" * (LARGEST + 1), 1, "larger"), (None, 1, "No such file")],
)
def test_a_source_that_cannot_be_read(tmp_path: Path, data: bytes | None, line: int, text: str) -> None:
    path = tmp_path / "source"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SourceError, match=text) as caught:
        read_source(str(path))
    assert str(caught.value).startswith(f"{path}:{line}: cannot read: ")


def test_a_folder_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        read_source(str(tmp_path))
