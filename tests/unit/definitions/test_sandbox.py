"""A definition cannot reach anything outside of its Lua state."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.definitions.lua import NAMES
from tests.unit.definitions.loading import Files, load_paths

# each would be a way out; all have to be nil, or to fail
ESCAPES = [
    "io", "io.open('/etc/passwd')", "os.execute", "os.remove", "os.getenv", "os.exit", "os.tmpname", "os.rename",
    "os.setlocale", "require", "require('ffi')", "package.loaded", "package.preload", "package.loaders",
    "package.loadlib", "package.path", "fsys.mkdir", "proc.exec", "rawget(fsys, 'mkdir')", "next(unix)",
    "getmetatable(proc)", "debug", "debug.getregistry()", "jit", "ffi", "python", "python.eval", "python.builtins",
    "load", "loadstring", "loadstring('return 1')", "loadfile", "dofile", "dofile('/etc/passwd')", "getfenv",
    "getfenv(0)", "getfenv(udp)",
    "getfenv(2).io", "setfenv", "newproxy", "newproxy(true)", "collectgarbage", "gcinfo", "string.dump",
    "string.dump(function() end)", "('').dump", "getmetatable('').__index", "setmetatable('', {})",
    "setmetatable(_G, {})", "setmetatable(ports, {})", "setmetatable(udp('127.0.0.1', 1), {})", "_G._G.io", "_G.debug",
    "rawget(_G, 'io')", "rawget(_G, '__index')", "coroutine.wrap(function() return io end)()", "udp.file",
    "udp('127.0.0.1', 1).kind", "udp('127.0.0.1', 1)()", "ports.qotd.name", "rawget(ports, 'qotd')",
    "rawget(udp('127.0.0.1', 1), 'kind')", "select(2, pcall(getmetatable(_G) or error))", "next(ports)",
    "next(udp('127.0.0.1', 1))", "next(_G)", "unpack(ports)", "pairs.x", "('x').io", "math.io", "bit.ffi",
    "coroutine.close", "rawget(_G, '_G')", "_ENV", "arg", "_G['\\0']",
]  # fmt: skip


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_way_out(files: Files, escape: str) -> None:
    text = f"local found, way = pcall(function() return {escape} end)\n"
    text += 'x = { exec = "/bin/x", description = found and type(way) or "failed", arg = { type(way) } }'
    service = files.load(text).services["x"]
    assert service.description in ("nil", "failed") or (service.arg == ("boolean",)), service.description


def test_only_what_belongs_here_is_reachable(files: Files) -> None:
    text = """
    local names = {}
    for _, library in ipairs({ "string", "table", "math", "bit", "coroutine", "os" }) do
      for name in pairs(_G[library]) do names[#names + 1] = library .. "." .. name end
    end
    for name in pairs(getmetatable("") or {}) do names[#names + 1] = "metatable." .. name end
    table.sort(names)
    x = { exec = "/bin/x", arg = names }
    """
    names = files.load(text).services["x"].arg
    by_library = {library: {name for name in names if name.startswith(f"{library}.")} for library in NAMES}
    assert by_library["os"] == {"os.clock", "os.date", "os.difftime", "os.time"}
    assert by_library["string"] == {
        f"string.{name}" for name in "byte char find format gmatch gsub len lower match rep reverse sub upper".split()
    }
    assert by_library["coroutine"] == {
        f"coroutine.{name}" for name in "create resume running status wrap yield".split()
    }
    assert not any(name.startswith("metatable.") for name in names)


def test_every_name_that_messages_know_exists(files: Files) -> None:
    tests = "\n".join(f"assert({name} ~= nil, {name!r})" for name in sorted(NAMES))
    assert files.load(f'{tests}\nx = {{ exec = "/bin/x" }}').services


@pytest.mark.parametrize(
    "statement",
    [
        'getmetatable("").__index = nil',
        "string.format = nil; table.concat = nil; math.floor = nil",
        "string.format = error; string.gsub = error; string.find = error; table.concat = error",
        "rawset(_G, '_next', error); rawset(_G, '_G', {})",
        "for name in pairs(string) do string[name] = nil end",
        "local c = coroutine.create(function() coroutine.yield() end) coroutine.resume(c)",
        "pcall(error); pcall(error, nil); pcall(error, {})",
    ],
)
def test_tampering_changes_nothing(files: Files, statement: str) -> None:
    text = f'_fine = pcall(function() {statement} end)\nx = {{ exec = "/bin/x", arg = {{ "a\\"b", 1.5 }} }}'
    assert files.load(text).services["x"].arg == ('a"b', "1.5")


@pytest.mark.parametrize("name", ["next", "type", "pairs", "udp"])
def test_functions_cannot_be_replaced(files: Files, name: str) -> None:
    problems = files.problems(f'{name} = function() return 3 end\nx = {{ exec = "/x" }}')
    assert problems == [
        f"a.lua:1: {name!r} is a function, not a table: a service is a table, anything else has to be local or have a "
        "name that begins with '_'"
    ]


def test_a_state_for_each_file(files: Files) -> None:
    files.write('string.format = nil; leak = nil; _shared = 1; x = { exec = "/bin/x" }', "a.lua")
    files.write('y = { exec = "/bin/x", arg = { string.format("%d", 1), tostring(_shared) } }', "b.lua")
    assert load_paths(files.folder).services["y"].arg == ("1", "nil")


@pytest.mark.parametrize("first", [b"\x1bLJ\x02\x00", b"\x1bLua\x51\x00"])
def test_compiled_lua_is_refused(files: Files, first: bytes) -> None:
    path = files.folder / "a.lua"
    path.write_bytes(first + b"x = {}")
    assert files.problems_of(lambda: load_paths(path)) == ["a.lua:1: compiled Lua is not accepted, only text"]


def test_nothing_of_python_in_error_objects(files: Files, tmp_path: Path) -> None:
    text = """
    local fine, cause = pcall(function() return ports.x.y end)
    local other, reason = pcall(udp, setmetatable({}, { __index = error, __tostring = error, __call = error }))
    x = { exec = "/bin/x", arg = { type(cause), type(reason) } }
    """
    assert files.load(text).services["x"].arg == ("string", "table")
