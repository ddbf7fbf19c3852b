"""The host: the script, its handlers, their errors and their ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import weakref
from pathlib import Path

import pytest

from tests.unit.workers.lua.scripts import complete, hosted, prints, raises
from workers.lua.host import LuaHost
from workers.lua.state import ScriptError


def no_log(_level: int, _text: str) -> None:
    raise AssertionError("nothing is to be logged")


def test_print_goes_to_the_log_as_lua_writes_it() -> None:
    assert prints('print("a", 1, 1.5, nil, true) print() print(("x"):rep(3))') == ["a\t1\t1.5\tnil\ttrue", "", "xxx"]


def test_what_is_no_utf8_is_shown() -> None:
    assert prints(r'print("\255\0x")') == ["\\xff\0x"]


def test_a_script_is_a_file(tmp_path: Path) -> None:
    script = tmp_path / "reaper.lua"
    script.write_text("#!/usr/bin/luajit\nlocal x = nil\nx()\n")

    async def run() -> None:
        await LuaHost(script, no_log, asyncio.get_running_loop()).execute()

    with pytest.raises(ScriptError) as caught:
        complete(run())
    assert "/reaper.lua:3: attempt to call local 'x' (a nil value)\n" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    async def run() -> None:
        await LuaHost(tmp_path / "x.lua", no_log, asyncio.get_running_loop()).execute()

    with pytest.raises(ScriptError, match=r"^cannot read script '.*/x\.lua': No such file or directory$"):
        complete(run())


def test_what_is_no_lua() -> None:
    assert raises("function (") == "script:1: '<name>' expected near '('"


def test_an_error_at_the_top_level() -> None:
    assert raises('\nerror("no")') == "script:2: no"
    assert raises("error({})").startswith("table: 0x")


def test_handlers_are_what_is_defined_now() -> None:
    async def run() -> None:
        async with hosted("function a() b = function() end c = 1 end") as kept:
            has = kept.host.has
            assert (has("a"), has("b"), has("c")) == (True, False, False)
            assert await kept.host.call("a")
            assert (has("a"), has("b"), has("c")) == (True, True, False)

    complete(run())


def test_a_look_for_a_handler_runs_no_code_of_the_script() -> None:
    async def run() -> None:
        async with hosted("setmetatable(_G, { __index = function(_, name) error(name) end })") as kept:
            assert not kept.host.has("reload")

    complete(run())


def test_an_error_in_a_handler_is_logged_with_its_traceback_and_harms_nothing() -> None:
    script = """
count = 0
function inner() error("broken") end
function reload() count = count + 1 if count == 1 then inner() end print(count) end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            assert not await kept.host.call("reload")
            assert await kept.host.call("reload")
            assert kept.printed == ["2"]
            lines = kept.errors.pop().split("\n")
            assert lines[0] == "script: reload failed: script:3: broken"
            assert "\tscript:3: in function 'inner'" in lines
            assert any(line.startswith("\tscript:4: in function") for line in lines)

    complete(run())


def test_a_traceback_shows_nothing_of_the_libraries() -> None:
    async def run() -> None:
        async with hosted("function reload() control_resolve() end") as kept:
            assert not await kept.host.call("reload")
            problem = kept.errors.pop()
            assert "bad argument #1 to 'control_resolve'" in problem
            assert "[lua/" not in problem

    complete(run())


@pytest.mark.parametrize(
    "value", ["nil", "{}", "setmetatable({}, { __tostring = function() error('again') end })", "5", "print"]
)
def test_an_error_may_be_any_value(value: str) -> None:
    async def run() -> None:
        async with hosted(f"function reload() error({value}) end") as kept:
            assert not await kept.host.call("reload")
            assert kept.errors.pop().startswith("script: reload failed: ")

    complete(run())


def test_a_handler_that_recurses_without_end() -> None:
    async def run() -> None:
        async with hosted("function reload() return 1 + reload() end") as kept:
            assert not await kept.host.call("reload")
            assert "stack overflow" in kept.errors.pop()

    complete(run())


def test_what_a_library_does_not_foresee_is_logged_with_pythons_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(_size: int) -> bytes:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr("os.urandom", explode)

    async def run() -> None:
        async with hosted("function reload() sodium.randombytes(5) end") as kept:
            assert not await kept.host.call("reload")
            python, lua = kept.errors
            kept.errors.clear()
            assert python.startswith("script: unexpected error in randombytes: Traceback")
            assert "ZeroDivisionError: unforeseen" in python
            assert "script:1: unexpected error in randombytes: unforeseen" in lua

    complete(run())


def test_closing_ends_what_waits() -> None:
    script = 'db = pg:new("host=/nowhere") function reload() db:execute("SELECT 1") end'

    async def run() -> None:
        host = LuaHost(script.encode(), lambda _level, _text: None, asyncio.get_running_loop())
        await host.execute()
        call = host.call("reload")
        await asyncio.sleep(0)
        host.close()
        assert call.cancelled()

    complete(run())


def test_a_closed_host_is_freed_with_its_state() -> None:
    async def run() -> weakref.ref[LuaHost]:
        async with hosted("function reload() end x = control_resolve('@x')") as kept:
            await kept.host.call("reload")
            return weakref.ref(kept.host)

    reference = complete(run())
    gc.collect()
    assert reference() is None


def test_what_is_printed_is_logged_at_info() -> None:
    levels = []

    async def run() -> None:
        host = LuaHost(b"print(1)", lambda level, _text: levels.append(level), asyncio.get_running_loop())
        await host.execute()
        host.close()

    complete(run())
    assert levels == [logging.INFO]


def test_calls_leave_no_memory_behind() -> None:
    """The benchmark makes a million of them."""

    async def run() -> None:
        async with hosted("function reload() local t = {} for i = 1, 10 do t[i] = i end end") as kept:
            peaks = []
            for _ in range(3):
                for _ in range(10_000):
                    kept.host.call("reload")
                await asyncio.sleep(0)
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            assert peaks[2] - peaks[1] < 1024, peaks

    complete(run())
