from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.definitions.checking import line_of, scan
from supervisor.definitions.problems import Path

TEXT = """-- web = {
web = { -- a comment with } and {
  exec = "/a}", ["cwd"] = '/b{',
  env = {
    A = [==[ ]] }
      ]==],
    ["B"] = 1,
  },
  --[[ user = "x",
  }]]
  fd = {
    udp("127.0.0.1", 1), file("/a"),
    tcp("127.0.0.1", 2, {
      backlog = 3,
    }),
    "x", 5,
    f(1, 2)
  },
  arg = {
    "-v" .. "x",
    -1,
    [7] = "y",
  }; stop = a == b,
}
web.limits = {
  cpu = 3,
}
web.limits.core = 4
_G.db = { exec = "x" }
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("exec",), 3), (("cwd",), 3), (("env",), 4), (("env", "A"), 5), (("env", "B"), 7), (("fd",), 11),
        (("fd", 1), 12), (("fd", 2), 12), (("fd", 3), 13), (("fd", 3, "backlog"), 14), (("fd", 4), 16),
        (("fd", 5), 16), (("fd", 6), 17), (("arg",), 19), (("arg", 1), 20), (("arg", 2), 21), (("arg", 7), 22),
        (("stop",), 23), (("limits",), 25), (("limits", "cpu"), 26), (("limits", "core"), 28),
    ],
)  # fmt: skip
def test_lines(path: Path, line: int) -> None:
    found = scan(TEXT).find("web", 0)
    assert found is not None
    assert found.first == 2
    assert line_of(found.node, path) == (line, True)


def test_what_is_not_written_down_has_the_line_around_it() -> None:
    found = scan(TEXT).find("web", 0)
    assert found is not None
    assert line_of(found.node, ("env", "C")) == (4, False)
    assert line_of(found.node, ("user",)) == (0, False)


def test_other_targets() -> None:
    lines = scan(TEXT)
    db = lines.find("db", 0)
    assert db is not None
    assert (db.first, db.last) == (29, 29)
    assert lines.find("nothing", 0) is None


def test_the_last_of_several_tables_counts() -> None:
    found = scan("x = { a = 1 }\nx = {\n a = 2 }").find("x", 0)
    assert found is not None
    assert line_of(found.node, ("a",)) == (3, True)


def test_a_table_without_a_name_is_found_by_the_line_that_ran() -> None:
    found = scan("local n = 1\nfoo({\n  a = 1,\n})").find("x", 3)
    assert found is not None
    assert line_of(found.node, ("a",)) == (3, True)


def test_keys_given_twice() -> None:
    found = scan("x = {\n a = 1,\n b = { a = 2, a = 3 },\n a = 4 }").find("x", 0)
    assert found is not None
    assert found.twice == [("a", 2, 4)]


@given(st.text(alphabet="{}()[]=,;.'\"-\\ \nabc_1"))
def test_any_text_can_be_scanned(text: str) -> None:
    lines = scan(text)
    last = text.count("\n") + 1
    assert all(1 <= item.first <= last and 1 <= item.last <= last for item in lines.constructors)
