"""All problems of all files at once, each on its line."""

from __future__ import annotations

from tests.unit.definitions.loading import Files, load_paths

WEB = """web = {
  exec = "usr/sbin/web",
  umaks = "022",
  user = "rooot",
  fd = {
    tcp("*", 80, { backlog = 0,
      passcred = true }),
    file("x"), udp("127.0.0.1", "tftpp"),
    7,
  },
  limits = { nofile = "1k",
    stck = 3 },
  depends = { "dbb" },
  env = {
    A = true, -- } not the end
    B = [[ } nor this ]], C = "}",
    D = {},
  },
  user = "root",
}
"""


def test_many_in_one_service(files: Files) -> None:
    assert [problem.split(": ", 3)[:3] for problem in files.problems(WEB)] == [
        ["a.lua:2", "web", "exec"],
        ["a.lua:3", "web", "unknown key 'umaks', did you mean 'umask'?"],
        ["a.lua:6", "web", "fd[1].backlog"],
        ["a.lua:7", "web", "fd[1].passcred"],
        ["a.lua:8", "web", "fd[2]"],
        ["a.lua:8", "web", "fd[3]"],
        ["a.lua:9", "web", "fd[4]"],
        ["a.lua:11", "web", "limits.nofile"],
        ["a.lua:12", "web", "limits.stck"],
        ["a.lua:13", "web", "depends[1]"],
        ["a.lua:15", "web", "env.A"],
        ["a.lua:17", "web", "env.D"],
        ["a.lua:19", "web", "key 'user' is given twice, first on line 4"],
    ]


def test_all_files(files: Files) -> None:
    files.write("x = = 3", "1.lua")
    files.write('a = { exec = "/x", nicee = 1 }\nb = 3', "2.lua")
    files.write('a = { exec = "/y" }', "3.lua")
    files.write('\nerror("no")', "4.lua")
    (files.folder / "5.lua").write_bytes(b'-- fine\na = "\xff"')
    problems = files.problems_of(lambda: load_paths(files.folder, files.folder / "missing.lua"))
    assert problems == [
        "missing.lua:1: cannot read: No such file or directory",
        "1.lua:1: unexpected symbol near '='",
        "2.lua:1: a: unknown key 'nicee', did you mean 'nice'?",
        "2.lua:2: 'b' is 3, not a table: a service is a table, anything else has to be local or have a name that "
        "begins with '_'",
        f"3.lua:1: a: is defined at {files.folder}/2.lua:1 as well".replace(f"{files.folder}/", ""),
        "4.lua:2: no",
        "5.lua:2: cannot use: its byte \\xff is not UTF-8",
    ]


def test_services_of_a_broken_file_are_not_called_unknown(files: Files) -> None:
    files.write('db = { exec = "/x" }\nx = = 3', "1.lua")
    files.write('web = { exec = "/x", depends = { "db", "bd" } }', "2.lua")
    problems = files.problems_of(lambda: load_paths(files.folder))
    assert [problem.split(":")[0] for problem in problems] == ["1.lua", "2.lua"]
    assert "unknown service 'bd'" in problems[1]


def test_nothing_is_called_unknown_where_a_file_cannot_be_read(files: Files) -> None:
    files.write('web = { exec = "/x", depends = "db" }')
    problems = files.problems_of(lambda: load_paths(files.folder, files.folder / "b.lua"))
    assert problems == ["b.lua:1: cannot read: No such file or directory"]


def test_twice_in_one_file(files: Files) -> None:
    problems = files.problems('x = { exec = "/x" }\n\nx = { exec = "/y" }')
    assert problems == ["a.lua:3: x: is defined on line 1 as well"]


def test_computed_definitions_have_the_line_that_ran(files: Files) -> None:
    text = """local function make(port)
  return { exec = "/x", fd = {
    tcp("127.0.0.1", port) } }
end
x = make(1)
y = make("tftpp")
z = make(1)
"""
    problems = files.problems(text)
    assert [problem.split(": ")[:3] for problem in problems] == [
        ["a.lua:3", "y", "fd[1]"],
        ["a.lua:7", "z", "fd[1]"],
    ]
