"""Handlers that call `coroutine.yield()`, and go on when another call resumes their coroutine."""

from __future__ import annotations

import os

import pytest

from tests.unit.waiting import DEADLINE
from tests.unit.workers.lua.scripts import complete, hosted, prints, wait_for
from workers.lua.host import SUSPENDED
from workers.lua.released import Released

# a name that only the resolver knows, so that control_resolve waits
WAIT = "control_resolve('localhost:1')"
HOLD = "function hold() thread = coroutine.running() print('in', coroutine.yield(1, 2)) {after} end\n"


def freed(script: str) -> list[str]:
    """Return what is printed by a handler `hold` that yields and by `free`, which resumes it to its end."""

    async def run() -> list[str]:
        async with hosted(script) as kept:
            held = kept.host.call("hold")
            assert await kept.host.call("free")
            assert await held
            return kept.printed

    return complete(run())


def test_a_handler_is_suspended_until_another_one_resumes_it() -> None:
    script = HOLD.format(after="return 'over', nil") + """
function free() print(coroutine.status(thread)) print(coroutine.resume(thread, 'a', nil, 'b')) end
function again() print(coroutine.status(thread), coroutine.resume(thread)) end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            held = kept.host.call("hold")
            assert not held.done()
            assert await kept.host.call("free")
            assert await held
            assert await kept.host.call("again")
            assert kept.printed == [
                "suspended", "in\ta\tnil\tb", "true\tover\tnil", "dead\tfalse\tcannot resume dead coroutine"
            ]  # fmt: skip

    complete(run())


def test_what_a_handler_yields_is_what_its_resume_returns() -> None:
    script = """
function hold() thread = coroutine.running() for i = 1, 3 do coroutine.yield(i) end end
function free() print(coroutine.resume(thread)) print(coroutine.resume(thread)) print(coroutine.resume(thread)) end
"""
    assert freed(script) == ["true\t2", "true\t3", "true"]


def test_a_wait_of_a_resumed_handler_is_its_own() -> None:
    script = HOLD.format(after=f"{WAIT} print('waited', coroutine.yield()) {WAIT} print('end')") + """
function free(...) print('free', coroutine.resume(thread, ...)) print(coroutine.status(thread)) end
function twice() print(coroutine.resume(thread)) end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            held = kept.host.call("hold")
            assert await kept.host.call("free")
            assert await kept.host.call("twice")
            assert kept.printed == ["in", "free\ttrue", "normal", "false\tcannot resume non-suspended coroutine"]
            kept.printed.clear()
            while not held.done():
                await wait_for(lambda: held.done() or kept.host._suspended)
                if not held.done():
                    assert await kept.host.call("free")
            assert await held
            assert kept.printed == ["waited", "free\ttrue", "normal", "end"]

    complete(run())


def test_handlers_in_a_row_need_no_depth() -> None:
    """A lock that a script makes of coroutines: each call ends by waking up the next one, which waits for the host."""
    script = f"""
local queue, busy, done = {{}}, false, 0
function locked()
  if busy then queue[#queue + 1] = coroutine.running() coroutine.yield() end
  busy = true
  {WAIT}
  done = done + 1
  if queue[1] then assert(coroutine.resume(table.remove(queue, 1))) else busy = false print(done) end
end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            calls = [kept.host.call("locked") for _ in range(300)]
            for call in calls:
                assert await call
            assert kept.printed == ["300"]

    complete(run())


def test_an_error_is_the_resumes_and_is_logged() -> None:
    script = HOLD.format(after="error('no')") + "function free() print(coroutine.resume(thread)) end"

    async def run() -> None:
        async with hosted(script) as kept:
            held = kept.host.call("hold")
            assert await kept.host.call("free")
            assert not await held
            assert kept.printed == ["in", "false\tscript:1: no"]
            lines = kept.errors.pop().split("\n")
            assert lines[0] == "script: hold failed: script:1: no"
            assert any("script:1: in function" in line for line in lines)
            assert "[lua/" not in "".join(lines)

    complete(run())


def test_a_handler_cannot_resume_itself() -> None:
    script = """
function hold()
  thread = coroutine.running()
  print(coroutine.resume(thread))
  coroutine.yield()
  print(coroutine.resume(thread))
end
function free() coroutine.resume(thread) end
"""
    assert freed(script) == ["false\tcannot resume running coroutine"] * 2


def test_a_function_of_c_may_resume_a_handler_that_waits() -> None:
    script = HOLD.format(after=f"{WAIT} print('end')") + (
        "function free() string.gsub('a', 'a', function() print(coroutine.resume(thread)) end) end"
    )
    assert freed(script) == ["in", "true", "end"]


def test_its_cgroup_can_be_used_until_it_has_ended() -> None:
    script = """
function cgroup_released(cgroup) kept = cgroup thread = coroutine.running() coroutine.yield() print(cgroup.path) end
function free() coroutine.resume(thread) print(pcall(function() return kept.path end)) end
"""

    async def run() -> None:
        fd = os.open("/", os.O_RDONLY)
        async with hosted(script) as kept:
            held = kept.host.call("cgroup_released", Released("/a", fd))
            assert await kept.host.call("free")
            assert await held
            assert kept.printed == ["/a", "false\tscript:3: Stale object"]
        os.close(fd)

    complete(run())


def test_calls_that_nothing_can_resume_are_ended() -> None:
    """Otherwise they would keep descriptors, and the reaper from calling the others, for ever."""
    script = """
function hold() thread = coroutine.running() coroutine.yield() print('end') end
function drop() coroutine.yield() end
function free() coroutine.resume(thread) end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            held = kept.host.call("hold")
            dropped = [kept.host.call("drop") for _ in range(SUSPENDED - 1)]
            assert [await call for call in dropped] == [False] * len(dropped)
            assert set(kept.errors) == {
                "script: drop failed: it has called coroutine.yield(), and nothing can resume its coroutine"
            }
            kept.errors.clear()
            assert not held.done()
            one = kept.host.call("drop")
            kept.host.end_lost()
            assert not await one
            assert kept.errors.pop()
            assert await kept.host.call("free")
            assert await held
            assert kept.printed == ["end"]

    complete(run())


def test_many_that_can_be_resumed_stay() -> None:
    script = """
local threads = {}
function hold() threads[#threads + 1] = coroutine.running() coroutine.yield() end
function free() for _, thread in ipairs(threads) do assert(coroutine.resume(thread)) end end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            calls = [kept.host.call("hold") for _ in range(5 * SUSPENDED)]
            assert await kept.host.call("free")
            for call in calls:
                assert await call

    complete(run())


def test_closing_ends_what_is_suspended() -> None:
    async def run() -> None:
        async with hosted(HOLD.format(after="")) as kept:
            held = kept.host.call("hold")
        assert held.cancelled()

    complete(run())


@pytest.mark.timeout(DEADLINE)
def test_the_script_itself_cannot_yield() -> None:
    """Nobody could resume it, and the reaper would wait for its end."""
    assert prints("print(pcall(coroutine.yield)) print(coroutine.isyieldable())") == [
        "false\tscript:1: attempt to yield from outside a coroutine", "false"
    ]  # fmt: skip


def test_a_handler_is_yieldable() -> None:
    async def run() -> None:
        async with hosted("function reload() print(coroutine.isyieldable()) end") as kept:
            assert await kept.host.call("reload")
            assert kept.printed == ["true"]

    complete(run())
