"""Nothing of Python is in a script's reach, and everything of Lua is."""

from __future__ import annotations

import pytest

from tests.unit.workers.lua.scripts import complete, hosted, prints
from workers.lua.sodium import Sodium
from workers.lua.state import DONE, FAILED, RAISED, Failure, Fault, LuaState, Opaque, values

# Every value that can be reached from the globals, through tables, metatables and upvalues, and what kinds there are.
WALK = """
local seen, kinds, found = {}, {}, {}
local function visit(value)
  if value == nil or seen[value] then return end
  local kind = type(value)
  if kind ~= "table" and kind ~= "function" and kind ~= "userdata" then return end
  seen[value] = true
  if kind == "userdata" then found[#found + 1] = value end
  if kind == "table" then
    for key, item in next, value do visit(key) visit(item) end
  elseif kind == "function" and {deep} then
    for i = 1, 250 do
      local name, item = debug.getupvalue(value, i)
      if not name then break end
      visit(item)
    end
  end
  visit(debug.getmetatable(value))
end
visit(_G)
"""


@pytest.mark.parametrize(
    "name", "assert bit coroutine debug ffi io jit math os package require string table loadstring newproxy".split()
)
def test_all_libraries_of_luajit_are_there(name: str) -> None:
    script = f"print(type({name} or require('{name}')))"
    assert prints(script)[0] in ("table", "function")


def test_there_is_no_python() -> None:
    assert prints("print(python, package.loaded.python, pcall(require, 'python'))")[0].startswith("nil\tnil\tfalse")


def test_no_object_of_python_is_reachable() -> None:
    script = WALK.replace("{deep}", "false") + "for i = 1, #found do print(tostring(found[i])) end"
    lines = prints(script)
    assert [line for line in lines if not line.startswith("file ")] == []


def test_what_debug_digs_out_has_no_attributes() -> None:
    script = (
        WALK.replace("{deep}", "true")
        + """
local functions = 0
for _, value in ipairs(found) do
  if tostring(value):find("<", 1, true) then
    functions = functions + 1
    for _, name in ipairs { "__class__", "__globals__", "__self__", "__init__", "func_globals", 1 } do
      assert(not pcall(function() return value[name] end), name)
      assert(not pcall(function() value[name] = 1 end), name)
    end
    local fine, problem = pcall(function() return value.__class__ end)
    assert(not pcall(function() return problem.__traceback__ end))
  end
end
print(functions > 10)
"""
    )
    assert prints(script) == ["true"]


def test_objects_show_nothing_and_cannot_be_changed() -> None:
    script = """
local address = control_resolve("@x")
print(type(address), address, getmetatable(address), address.handle)
print(pcall(function() address.handle = 1 end))
print(pcall(setmetatable, address, {}))
"""
    first, second, third = prints(script)
    assert first == "userdata\t@x\tfalse\tnil"
    assert second == "false\tscript:4: cannot change an object: address"
    assert third.startswith("false\t")


def test_answers() -> None:
    unforeseen: list[tuple[str, BaseException]] = []
    state = LuaState(lambda name, error: unforeseen.append((name, error)))

    def raising(error: Exception) -> object:
        def function() -> None:
            raise error

        return state.answer("name", function)

    assert state.answer("name", lambda: (1, "ä", b"\xff", None, True)) == (DONE, 1, b"\xc3\xa4", b"\xff", None, True)
    assert raising(Failure("no")) == (FAILED, b"no")
    assert raising(Fault("wrong")) == (RAISED, b"wrong")
    assert raising(FileNotFoundError(2, "No such file")) == (FAILED, b"No such file")
    assert unforeseen == []
    assert raising(KeyError("x")) == (RAISED, b"unexpected error in name: 'x'")
    assert [(name, type(error)) for name, error in unforeseen] == [("name", KeyError)]


def test_only_plain_values_and_handles_go_to_lua() -> None:
    handle = Opaque()
    assert values((handle, 1.5)) == (handle, 1.5)
    for value in ([], {}, object(), lambda: 1, (1, [])):
        with pytest.raises(TypeError, match="cannot give"):
            values(value)


def test_a_library_that_is_wrong_gives_lua_nothing() -> None:
    unforeseen: list[BaseException] = []
    state = LuaState(lambda _name, error: unforeseen.append(error))
    assert state.answer("name", lambda: [1])[0] == RAISED
    assert isinstance(unforeseen[0], TypeError)


def test_hosts_do_not_share_their_globals() -> None:
    async def run() -> None:
        async with hosted("x = 1 function reload() print(x) end"), hosted("function reload() print(x) end") as other:
            await other.host.call("reload")
            assert other.printed == ["nil"]

    complete(run())


def test_libraries_that_never_wait_need_no_host() -> None:
    state = LuaState(lambda _name, error: pytest.fail(str(error)))
    state.install("sodium", Sodium().functions)
    sodium = state.globals()[b"sodium"]
    assert sodium[b"bin2hex"](b"A") == b"41"
    with pytest.raises(state.error, match=r"bad argument #1 to 'bin2hex' \(string expected, got nil\)"):
        sodium[b"bin2hex"]()
