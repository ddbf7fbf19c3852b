"""Notifications, from a real server."""

from __future__ import annotations

import asyncio

import psycopg

from tests.postgres import Postgres
from tests.unit.waiting import wait_until
from tests.unit.workers.lua.scripts import complete, hosted, raises, wait_for


def connected(server: Postgres) -> str:
    return f"db = pg:new([[{server.conninfo}]]) "


def test_notifications(server: Postgres) -> None:
    script = connected(server) + "n = 0 db:listen('Odd \"name', function(...) n = n + 1 print(n, select('#', ...)) end)"

    async def run() -> None:
        async with hosted(script) as kept:
            await asyncio.to_thread(wait_listening, server, 'Odd "name')
            await asyncio.to_thread(server.execute, 'NOTIFY "Odd ""name"')
            await wait_for(lambda: kept.printed[1:] == ["1\t0"])
            await asyncio.to_thread(server.execute, "NOTIFY other")
            await asyncio.to_thread(server.execute, 'NOTIFY "Odd ""name", \'payload\'')
            await wait_for(lambda: kept.printed[1:] == ["1\t0", "2\t0"])

    complete(run())


def test_a_listener_that_is_added_later(server: Postgres) -> None:
    script = connected(server) + "function reload() db:listen('late', function() print('told') end) end"

    async def run() -> None:
        async with hosted(script) as kept:
            await wait_for(lambda: kept.printed)
            assert await kept.host.call("reload")
            await asyncio.to_thread(wait_listening, server, "late")
            await asyncio.to_thread(server.execute, "NOTIFY late")
            await wait_for(lambda: "told" in kept.printed)

    complete(run())


def wait_listening(server: Postgres, channel: str) -> None:
    """Wait until a connection has had its LISTEN answered: an idle one whose last query that is.

    The log says "connected" before it. A notification of another connection may come in between, and is lost.
    """
    quoted = channel.replace('"', '""')
    sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' AND query = %s"
    wait_until(lambda: server.execute(sql, f'LISTEN "{quoted}"') == [(1,)])


def test_those_that_come_while_it_runs_give_one_more_run(server: Postgres) -> None:
    script = (
        connected(server)
        + """
n = 0
db:listen("busy", function()
  n = n + 1
  print("begin", n)
  assert(db:execute("SELECT pg_advisory_lock(1)"))
  assert(db:execute("SELECT pg_advisory_unlock(1)"))
  print("end", n)
end)
"""
    )

    def notify() -> None:
        with psycopg.connect(server.conninfo, autocommit=True) as holder:
            holder.execute("SELECT pg_advisory_lock(1)")
            for _ in range(5):
                server.execute("NOTIFY busy")

    async def run() -> None:
        async with hosted(script) as kept:
            await asyncio.to_thread(wait_listening, server, "busy")
            await asyncio.to_thread(notify)
            lines = ["begin\t1", "end\t1", "begin\t2", "end\t2"]
            await wait_for(lambda: kept.printed[1:] == lines)
            await asyncio.to_thread(server.execute, "NOTIFY busy")
            await wait_for(lambda: kept.printed[1:] == [*lines, "begin\t3", "end\t3"])

    complete(run())


def test_an_error_in_a_listener_is_logged_and_the_next_one_is_told(server: Postgres) -> None:
    script = connected(server) + "db:listen('bad', function() print('told') error('no') end)"

    async def run() -> None:
        async with hosted(script) as kept:
            await asyncio.to_thread(wait_listening, server, "bad")
            for number in (1, 2):
                await asyncio.to_thread(server.execute, "NOTIFY bad")
                await wait_for(lambda number=number: len(kept.errors) == number)  # type: ignore[misc]
            assert kept.errors[0].startswith("script: listener of 'bad' failed: script:1: no\nstack traceback:")
            kept.errors.clear()

    complete(run())


def test_a_second_listen_on_a_channel_raises() -> None:
    script = "db = pg:new('host=/nowhere') db:listen('x', print)\ndb:listen('x', print)"
    problem = "script:2: bad argument #1 to 'listen' (channel 'x' has a listener already)"
    assert raises(script) == problem


def test_the_same_channel_on_another_connection(server: Postgres) -> None:
    script = (
        f"for i = 1, 2 do local db = pg:new([[{server.conninfo}]]) db:listen('x', function() print(i) end) "
        "assert(db:execute('SELECT 1')) end"
    )

    async def run() -> None:
        async with hosted(script) as kept:
            await asyncio.to_thread(server.execute, "NOTIFY x")
            await wait_for(lambda: {"1", "2"} <= set(kept.printed))

    complete(run())


def test_what_is_notified_at_once_after_the_connection_is_there(server: Postgres) -> None:
    """Many connections, each told as soon as it listens."""
    script = f"""
function one()
  local db = pg:new([[{server.conninfo}]])
  db:listen("soon", function() print("told") end)
  assert(db:execute("NOTIFY soon"))
end
"""

    async def run() -> None:
        for _ in range(5):
            async with hosted(script) as kept:
                assert await kept.host.call("one")
                await wait_for(lambda kept=kept: "told" in kept.printed)  # type: ignore[misc]

    complete(run())


def test_a_listener_that_is_added_while_the_connection_is_made(server: Postgres) -> None:
    script = (
        connected(server)
        + """
function reload() db:listen("late", function() print("told") end) end
function notify() assert(db:execute("NOTIFY late")) end
"""
    )

    async def run() -> None:
        for rounds in range(0, 40, 4):
            async with hosted(script) as kept:
                for _ in range(rounds):
                    await asyncio.sleep(0)
                await kept.host.call("reload")
                await wait_for(lambda kept=kept: kept.printed)  # type: ignore[misc]
                await kept.host.call("notify")
                await wait_for(lambda kept=kept: "told" in kept.printed)  # type: ignore[misc]

    complete(run())


def test_a_server_that_refuses_to_be_listened_to(server: Postgres) -> None:
    script = connected(server) + "db:execute('BEGIN') db:execute('nonsense') db:listen('x', print)"

    async def run() -> None:
        async with hosted(script) as kept:
            await wait_for(lambda: kept.errors)
            problem = "database 'postgres': cannot listen to 'x': ERROR:  current transaction is aborted"
            assert kept.errors.pop().startswith(problem)

    complete(run())
