"""Coroutines of the script are those of plain Lua, and yet what waits in them waits for the host."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.workers.lua.scripts import complete, hosted, prints, raises

# a name that only the resolver knows, so that control_resolve waits
WAIT = "control_resolve('localhost:1')"


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ("co = coroutine.create(function(a) local b = coroutine.yield(a + 1) return b * 2 end) "
         "print(coroutine.resume(co, 1)) print(coroutine.resume(co, 4)) print(coroutine.resume(co))",
         ["true\t2", "true\t8", "false\tcannot resume dead coroutine"]),
        ("print(select('#', coroutine.resume(coroutine.create(function() end))))", ["1"]),
        ("print(select('#', coroutine.resume(coroutine.create(function() coroutine.yield(nil, nil) end))))", ["3"]),
        ("f = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) print(f(), f(), f())", ["1\t2\t3"]),
        ("co = coroutine.create(function() print(coroutine.status(co)) coroutine.yield() end) "
         "print(coroutine.status(co)) coroutine.resume(co) print(coroutine.status(co)) coroutine.resume(co) "
         "print(coroutine.status(co))", ["suspended", "running", "suspended", "dead"]),
        ("co = coroutine.create(function() print(coroutine.running() == co) end) coroutine.resume(co)", ["true"]),
        ("print(coroutine.resume(coroutine.create(function() error('x') end)))", ["false\tscript:1: x"]),
        ("t = {} print(select(2, pcall(coroutine.wrap(function() error(t) end))) == t)", ["true"]),
        ("print(pcall(function() coroutine.wrap(function() error('x', 0) end)() end))", ["false\tscript:1: x"]),
        ("print(pcall(coroutine.yield))", ["false\tscript:1: attempt to yield from outside a coroutine"]),
        ("print(coroutine.isyieldable()) coroutine.wrap(function() print(coroutine.isyieldable()) end)()",
         ["false", "true"]),
        ("co = coroutine.create(function() return coroutine.resume(co) end) print(coroutine.resume(co))",
         ["true\tfalse\tcannot resume running coroutine"]),
        ("for word in coroutine.wrap(function() coroutine.yield('a') coroutine.yield('b') end) do print(word) end",
         ["a", "b"]),
    ],
)  # fmt: skip
def test_plain_lua(script: str, printed: list[str]) -> None:
    assert prints(script) == printed


@pytest.mark.parametrize("name", ["create", "wrap"])
def test_what_is_no_function(name: str) -> None:
    assert raises(f"coroutine.{name}(5)") == f"script:1: bad argument #1 to '{name}' (function expected, got number)"


@pytest.mark.parametrize("name", ["resume", "status"])
def test_what_is_no_coroutine(name: str) -> None:
    assert raises(f"coroutine.{name}(5)") == f"script:1: bad argument #1 to '{name}' (coroutine expected, got number)"


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        (f"print({WAIT} ~= nil)", ["true"]),
        (f"print(pcall(function() return {WAIT} ~= nil end))", ["true\ttrue"]),
        (f"f = coroutine.wrap(function() {WAIT} coroutine.yield(1) {WAIT} return 2 end) print(f(), f())", ["1\t2"]),
        (f"f = coroutine.wrap(function() local g = coroutine.wrap(function() {WAIT} coroutine.yield(1) {WAIT} return 2 "
         "end) coroutine.yield(g()) return g() end) print(f(), f())", ["1\t2"]),
        (f"for x in coroutine.wrap(function() for i = 1, 2 do {WAIT} coroutine.yield(i) end end) do print(x) end",
         ["1", "2"]),
    ],
)  # fmt: skip
def test_waiting_does_not_return_to_the_scripts_resume(script: str, printed: list[str]) -> None:
    assert prints(script) == printed


def test_a_coroutine_that_waits_is_that_of_its_resume() -> None:
    script = f"""
co = coroutine.create(function() {WAIT} return "end" end)
function first() print("first", coroutine.resume(co)) end
function second() print("second", coroutine.status(co), coroutine.resume(co)) end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            first = kept.host.call("first")
            assert await kept.host.call("second")
            assert await first
            message = "cannot resume non-suspended coroutine"
            assert kept.printed == [f"second\tnormal\tfalse\t{message}", "first\ttrue\tend"]

    complete(run())


CANNOT = "cannot wait in a function that string.gsub, table.sort or another function of C calls"


def test_functions_of_c_cannot_wait() -> None:
    script = f"print(pcall(string.gsub, 'a', 'a', function() local a = {WAIT} return a end)) print({WAIT} ~= nil)"
    assert prints(script) == [f"false\tscript:1: {CANNOT}", "true"]


def test_functions_of_c_cannot_wait_through_a_coroutine() -> None:
    script = f"""
co = coroutine.create(function() local a = {WAIT} return a end)
string.gsub("a", "a", function() print(coroutine.resume(co)) end)
print({WAIT} ~= nil)
"""
    assert prints(script) == [f"false\tscript:2: {CANNOT}", "true"]


def test_a_file_that_the_script_runs_may_wait(tmp_path: Path) -> None:
    path = tmp_path / "other.lua"
    path.write_text(f"{WAIT} return 7")
    assert prints(f"print(dofile('{path}'))") == ["7"]
    assert raises("dofile('/nowhere')") == "script:1: cannot open /nowhere: No such file or directory"


def test_the_others_run_while_one_waits() -> None:
    script = f"function slow() print('begin') {WAIT} print('end') end function quick() print('quick') end"

    async def run() -> None:
        async with hosted(script) as kept:
            calls = [kept.host.call(name) for name in ("slow", "slow", "quick")]
            assert all(await asyncio.gather(*calls))
            assert kept.printed == ["begin", "begin", "quick", "end", "end"]

    complete(run())
