"""Lua code that never ends, takes all memory, fails, or gives back what is no definition."""

from __future__ import annotations

import time

import pytest

from tests.unit.definitions.loading import Files, load_paths

SERVICE = 'x = { exec = "/bin/x" }\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\nwhile true do\nend", 2),
        ("while true do pcall(function() while true do end end) end", 1),
        ("local c = coroutine.wrap(function()\n while true do end\nend)\nc()", 2),
        ("xpcall(function() while true do end end, function() while true do end end)", 1),
        ("x = setmetatable({}, { __index = function() while true do end end })\nlocal y = x.y", 1),
        ("while true do udp('127.0.0.1', 1) end", 1),
        ("local function f() return f() end\nf()", 1),
    ],
)
def test_endless_loop(files: Files, text: str, line: int) -> None:
    begin = time.process_time()
    problems = files.problems(text, deadline_s=0.05)
    assert time.process_time() - begin < 5
    assert problems == [f"a.lua:{line}: took longer than 0.05 s; an endless loop?"]


NESTED = "stack overflow: 200 callbacks of gsub or coroutines run inside each other; an endless recursion?"


@pytest.mark.parametrize(
    "call",
    [
        '("a"):gsub("a", f)',
        'string.gsub("a", "a", setmetatable({}, { __index = f }))',
        'string.gsub("a", "a", coroutine.wrap(f))',
        "coroutine.wrap(f)()",
        "assert(coroutine.resume(coroutine.create(f)))",
        "coroutine.wrap(function() table.sort({ 1, 2 }, f) end)()",
        'coroutine.wrap(function() return (("a"):gsub("a", f)) end)()',
    ],
)
def test_a_recursion_through_functions_in_c(files: Files, call: str) -> None:
    """The stack of C is not bounded by Lua: without a limit of ours the process would end with SEGV."""
    (problem,) = files.problems(f"local f\nf = function()\n  local x = {call}\n  return x\nend\nf()")
    assert problem.startswith("a.lua:3: ")
    assert problem.endswith(NESTED)


@pytest.mark.parametrize(
    "body",
    [
        "return 1 + f()",
        "table.sort({ 1, 2 }, f)",
        'for _ in ("a"):gmatch("a") do f() end',
        "local x = setmetatable({}, { __index = f }).a return x",
    ],
)
def test_a_recursion_in_lua(files: Files, body: str) -> None:
    assert files.problems(f"local f\nfunction f()\n  {body}\nend\nf()") == ["a.lua:3: stack overflow"]


def test_how_deep_callbacks_are_ends_with_their_errors(files: Files) -> None:
    assert files.load(f"""
for i = 1, 1000 do
  assert(not pcall(string.gsub, "a", "a", function() error("x") end))
  assert(not coroutine.resume(coroutine.create(function() error("x") end)))
  assert(not pcall(coroutine.wrap(function() error("x") end)))
  coroutine.wrap(function() coroutine.yield() end)()
end
local function deep(n) return n == 0 and "end" or ("a"):gsub("a", function() return (deep(n - 1)) end) end
assert(deep(190) == "end")
local function walk(n) return coroutine.wrap(function()
  if n > 0 then for i in walk(n - 1) do coroutine.yield(i + 1) end else coroutine.yield(0) end
end) end
assert(walk(190)() == 190)
{SERVICE}""").services


def test_gsub_and_coroutines_are_those_of_lua(files: Files) -> None:
    assert files.load(f"""
local s, n = ("abc"):gsub(".", function(c) if c ~= "b" then return c:upper() end end)
assert(s == "AbC" and n == 3)
assert(("abc"):gsub("(b)(c)", function(x, y) return y .. x end) == "acb")
assert(("abc"):gsub(".", {{ a = "1", b = false }}) == "1bc")
assert(("abc"):gsub(".", setmetatable({{}}, {{ __index = function(_, k) return k .. k end }}), 2) == "aabbc")
assert(("abc"):gsub("b", "%0%0") == "abbc")
local fine, problem = pcall(string.gsub, "a", "a", function() error("mine", 0) end)
assert(not fine and problem == "mine")
fine, problem = pcall(string.gsub, "a", "a", function() error({{ 7 }}) end)
assert(not fine and problem[1] == 7)
local thread = coroutine.create(function(...) return select("#", ...), coroutine.yield(...) end)
assert(select("#", coroutine.resume(thread, 1, nil, nil)) == 4)
assert(select(3, coroutine.resume(thread, "x")) == "x" and coroutine.status(thread) == "dead")
fine, problem = coroutine.resume(thread)
assert(not fine and problem == "cannot resume dead coroutine")
local wrapped = coroutine.wrap(function() return 1 end)
assert(wrapped() == 1 and not pcall(wrapped))
{SERVICE}""").services


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\nlocal x = string.gsub()", "a.lua:2: bad argument #1 to "),
        ("\nlocal x = string.gsub('a', '%', 'b')", "a.lua:2: malformed pattern (ends with '%')"),
        ("\nlocal x = string.gsub('a', '%', function() end)", "a.lua:2: malformed pattern (ends with '%')"),
        ("\nlocal x = string.gsub('a', 'a', function()\n  error('no')\nend)", "a.lua:3: no"),
        ("local f = coroutine.wrap(function()\n  error('no')\nend)\nf()", "a.lua:2: no"),
        ("local f = coroutine.wrap(function() end)\nf()\nf()", "a.lua:3: cannot resume dead coroutine"),
        ("\nlocal x = coroutine.resume()", "a.lua:2: bad argument #1 to "),
        ('return (("a"):rep(1e5)):find(("a?"):rep(40000))', "a.lua:1: pattern too complex"),
    ],
)
def test_errors_tell_the_line_of_the_file(files: Files, text: str, problem: str) -> None:
    (found,) = files.problems(text)
    assert found.startswith(problem)


def test_other_files_are_evaluated_after_that(files: Files) -> None:
    files.write('z = { exec = "/x" } while true do end', "a.lua")
    files.write('y = { exec = "/x", depends = {"z", "zz"} }', "b.lua")
    files.write("while true do end", "c.lua")
    files.write("x = {}", "d.lua")
    problems = files.problems_of(lambda: load_paths(files.folder, deadline_s=0.1))
    assert problems == [
        "a.lua:1: took longer than 0.1 s; an endless loop?",
        "c.lua:1: took longer than 0.1 s; an endless loop?",
        "d.lua:1: x: has neither exec nor worker: say what it runs, like exec = \"/usr/sbin/named\"",
        "b.lua:1: y: depends[2]: unknown service 'zz'",
    ]


def test_the_time_of_all_files_ends(files: Files) -> None:
    for number in range(6):
        files.write("while true do end", f"{number}.lua")
    problems = files.problems_of(lambda: load_paths(files.folder, deadline_s=0.1))
    assert all(f"{number}.lua:1: took longer than 0.1 s; an endless loop?" in problems for number in range(2))
    assert problems[-1].startswith(f"{len(problems) - 1}.lua:1: was not evaluated, as those before it were too much")
    assert len(problems) < 6


def test_memory_is_no_way_to_more_time(files: Files) -> None:
    for number in range(40):
        text = 'for i = 1, 5e6 do end local t = {} while true do t[#t + 1] = ("x"):rep(1000000) .. #t end'
        files.write(text, f"{number:02}.lua")
    problems = files.problems_of(lambda: load_paths(files.folder, deadline_s=0.05))
    assert problems[-1].startswith(f"{len(problems) - 1:02}.lua:1: was not evaluated")


@pytest.mark.parametrize(
    "text",
    [
        'local t = {} while true do t[#t + 1] = ("x"):rep(1000000) .. #t end',
        'local s = ("x"):rep(1e9)',
        "local t = {} for i = 1, 1e9 do t[i] = {} end",
        'local s = "x" while true do s = s .. s end',
        'pcall(function() local s = ("x"):rep(1e9) end) error("not enough memory", 0)',
    ],
)
def test_memory_bomb(files: Files, text: str) -> None:
    problems = files.problems(text)
    assert len(problems) == 1
    assert problems[0] == "a.lua:1: needs more than 64 MiB of memory"


def test_a_bomb_that_is_caught_is_harmless(files: Files) -> None:
    assert files.load(f'pcall(function() return ("x"):rep(1e9) end)\n{SERVICE}').services


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = = 3", "a.lua:1: unexpected symbol near '='"),
        ('x = {\n  exec = "/x"\n  arg = {}\n}', "a.lua:3: '}' expected (to close '{' at line 1) near 'arg'"),
        ("\n\nlocal t\nt.x = 1", "a.lua:4: attempt to index local 't' (a nil value)"),
        ('\nerror("no")', "a.lua:2: no"),
        ('\nerror("no", 0)', "a.lua:2: no"),
        ("\nerror({})", "a.lua:2: an error that is not a string but a table"),
        ("\nerror()", "a.lua:2: an error that is not a string but a nil"),
        ("assert(false)", "a.lua:1: assertion failed!"),
        ('x = upd("127.0.0.1", 1)', "a.lua:1: attempt to call global 'upd' (a nil value), did you mean 'udp'?"),
        (
            'require("x")',
            "a.lua:1: attempt to call global 'require' (a nil value); definitions have no 'require': each file stands "
            "for itself, and reads no other",
        ),
        ('io.open("/etc/passwd")', "a.lua:1: attempt to index global 'io' (a nil value); definitions have no 'io'"),
        ("x = string.rep()", "a.lua:1: bad argument #1 to 'rep'"),
        ('local s = udp("127.0.0.1", 1)\ns.backlog = 3', "a.lua:2: a descriptor has no fields to read or change"),
        ("ports.x = 3", "a.lua:1: ports is the database of this host"),
    ],
)
def test_errors_of_lua(files: Files, text: str, problem: str) -> None:
    problems = files.problems(text)
    assert problems[0].startswith(problem), problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 3", "a.lua:1: 'x' is 3, not a table: a service is a table, anything else has to be local or have a name"),
        ("function f() end", "a.lua:1: 'f' is a function, not a table"),
        ('x = "s"', "a.lua:1: 'x' is 's', not a table"),
        ("x = true", "a.lua:1: 'x' is true, not a table"),
        ('x = udp("127.0.0.1", 1)', "a.lua:1: 'x' is udp(…), not a table"),
        ("x = ports.qotd", "a.lua:1: 'x' is ports[…], not a table"),
        ('x = { "/bin/x" }', "a.lua:1: x: every entry of a service has a name"),
        ('x = { exec = "/bin/x", "y" }', "a.lua:1: x: every entry of a service has a name"),
        ("_G[1] = {}", "a.lua:1: the name of a service has to be text, not 1"),
        ('_G["a b"] = { exec = "/x" }', "a.lua:1: 'a b' cannot be the name of a service"),
        (f'_G["{"a" * 65}"] = {{ exec = "/x" }}', f"a.lua:1: '{'a' * 65}' cannot be the name of a service"),
        ('_G["-a"] = { exec = "/x" }', "a.lua:1: '-a' cannot be the name of a service"),
        ('log = { exec = "/x" }', "a.lua:1: 'log' cannot be a service"),
        ('all = { exec = "/x" }', "a.lua:1: 'all' cannot be the name of a service: spawnctl"),
        ('stream = { exec = "/x" }', "a.lua:1: 'stream' cannot be a service"),
        ("_DEFAULT = 3", "a.lua:1: _DEFAULT has to be a table with names, not 3"),
        ("_SUPERVISOR = { 1 }", "a.lua:1: _SUPERVISOR has to be a table with names, not a list"),
        ("x = { exec = x }", "a.lua:1: 'x' is not defined, it is nil"),
    ],
)
def test_globals_that_are_no_services(files: Files, text: str, problem: str) -> None:
    problems = files.problems(text)
    assert any(found.startswith(problem) for found in problems), problems


def test_good_names(files: Files) -> None:
    text = "".join(f'_G["{name}"] = {{ exec = "/x" }}\n' for name in ("a", "netns@blue", "a.b-c_d", "9p", "A" * 64))
    assert list(files.load(text).services) == ["a", "netns@blue", "a.b-c_d", "9p", "A" * 64]


def test_own_globals_and_locals_are_no_services(files: Files) -> None:
    text = f'_base = "/srv"\nfunction _path(name) return _base .. "/" .. name end\nlocal n = 3\n{SERVICE}'
    text += 'y = { exec = _path("y"), arg = { n } }'
    service = files.load(text).services["y"]
    assert (service.exec, service.arg) == ("/srv/y", ("3",))


def test_nil_takes_a_service_back(files: Files) -> None:
    assert list(files.load(f"{SERVICE}y = {{}}\ny = nil").services) == ["x"]


def test_computed_services(files: Files) -> None:
    text = 'for i = 1, 3 do\n  _G["s" .. i] = {\n    exec = "/x",\n    fd = { tcp("127.0.0.1", 8000 + i) },\n  }\nend'
    services = files.load(text).services
    assert [service.fd[0].port for service in services.values()] == [8001, 8002, 8003]
    assert services["s2"].lines == {"exec": 3, "fd": 4}


@pytest.mark.parametrize(
    "value", ["t", "{ a = t }", "(function() local d = {} for i = 1, 200 do d = { d } end return d end)()"]
)
def test_deep_and_cyclic_tables(files: Files, value: str) -> None:
    problems = files.problems(f'local t = {{}} t.t = t\nx = {{ worker = "accessory", options = {{ a = {value} }} }}')
    assert len(problems) == 1
    assert "a table that holds itself" in problems[0] or "a table nested too deep" in problems[0]


def test_tables_that_multiply(files: Files) -> None:
    text = 'local t = { 1 } for i = 1, 20 do t = { t, t } end\nx = { worker = "accessory", options = { t = t } }'
    assert files.problems(text) == ["a.lua:2: more than 200000 values"]


def test_large_values(files: Files) -> None:
    text = 'local s = ("x"):rep(3e6)\nx = { exec = "/x", arg = { s, s, s, s, s, s } }'
    assert files.problems(text) == ["a.lua:1: cannot use: its values take more than 16 MiB"]


def test_print_is_a_notice(files: Files) -> None:
    definitions = files.load(f'print("a", 1, {{}})\n{SERVICE}')
    assert [text.rpartition("/")[2] for text in definitions.notices] == ["a.lua:1: print: a 1 table"]


def test_undefined_names_are_noted(files: Files) -> None:
    notices = files.load(f"{SERVICE}\nx.cwd = CWD").notices
    assert [text.rpartition("/")[2] for text in notices] == ["a.lua:3: 'CWD' is not defined, it is nil"]


def test_no_file_is_no_service(files: Files) -> None:
    definitions = load_paths(files.folder)
    assert definitions.services == {}
    assert definitions.notices == (f"{files.folder}:1: defines no services: they are in files named *.lua",)
