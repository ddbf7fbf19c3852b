"""A server that is killed, stopped and started again under running handlers."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tests.unit.workers.lua.scripts import Hosted, complete, hosted, wait_for
from workers.lua import pg_connection

INSERT = """
db = pg:new([[{conninfo}]], "{schema}")
function insert()
  local result, problem = db:execute("INSERT INTO t VALUES ($1)", {{ 1 }})
  print(result and "inserted" or "failed", problem)
end
function sleep()
  local result, problem = db:execute("SELECT pg_sleep(60)")
  print("woken", result, problem)
end
"""


def script(server: Postgres, schema: str = "public") -> str:
    return INSERT.format(conninfo=server.conninfo, schema=schema)


def inserted(kept: Hosted) -> int:
    return sum(line == "inserted\tnil" for line in kept.printed)


def is_connected(kept: Hosted) -> bool:
    return kept.printed[-1:] == ["database 'postgres': connected"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection counts as healthy at once, so that a loss is followed by an attempt."""
    monkeypatch.setattr(pg_connection, "_HEALTHY", 0.0)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_queries_wait_for_a_server_that_is_started_again(server: Postgres, end: str) -> None:
    server.execute("CREATE TABLE t (a int)")

    async def run() -> None:
        async with hosted(script(server)) as kept:
            assert await kept.host.call("insert")
            await asyncio.to_thread(getattr(server, end))
            waiting = [kept.host.call("insert") for _ in range(100)]
            await asyncio.to_thread(server.start)
            assert all(await asyncio.gather(*waiting))
            assert inserted(kept) >= 1 + 99  # one may have been sent before anybody knew
            assert server.execute("SELECT count(*) FROM t")[0][0] == inserted(kept)

    complete(run())


def test_a_server_that_is_killed_again_and_again(server: Postgres) -> None:
    """Each insert that is said to be done is done, and handlers go on."""
    server.execute("CREATE TABLE t (a int)")

    async def run() -> None:
        async with hosted(script(server)) as kept:
            done = False

            async def work() -> None:
                while not done:
                    await asyncio.gather(*(kept.host.call("insert") for _ in range(20)))

            working = asyncio.create_task(work())
            for number in range(1, 4):
                await wait_for(lambda number=number: inserted(kept) > number * 200)  # type: ignore[misc]
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            await wait_for(lambda: inserted(kept) > 1000)
            done = True
            await working
            rows = server.execute("SELECT count(*) FROM t")[0][0]
            assert isinstance(rows, int)
            lost = sum(line.startswith("failed\tthe connection to the database is lost") for line in kept.printed)
            assert inserted(kept) <= rows <= inserted(kept) + lost

    complete(run())


def test_a_query_under_way_fails_and_says_why(server: Postgres) -> None:
    async def run() -> None:
        async with hosted(script(server)) as kept:
            call = kept.host.call("sleep")
            await asyncio.to_thread(wait_sleeping, server)
            await asyncio.to_thread(server.stop)
            assert await call
            (line,) = (line for line in kept.printed if line.startswith("woken"))
            assert line.startswith("woken\tnil\tthe connection to the database is lost, and with it the result: ")
            assert "terminating connection due to administrator command" in line

    complete(run())


def test_one_that_the_server_never_answers_fails_when_it_is_killed(server: Postgres) -> None:
    async def run() -> None:
        async with hosted(script(server)) as kept:
            call = kept.host.call("sleep")
            await asyncio.to_thread(wait_sleeping, server)
            await asyncio.to_thread(server.execute, TERMINATE)
            assert await call
            assert any("terminating connection" in line for line in kept.printed)
            await wait_for(lambda: sum(map(str.__contains__, kept.printed, ["connected"] * len(kept.printed))) == 2)

    complete(run())


TERMINATE = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


def wait_sleeping(server: Postgres) -> None:
    from tests.unit.waiting import wait_until

    wait_until(lambda: server.execute(SLEEPING) == [(1,)])


def test_schema_and_listeners_are_there_again(server: Postgres) -> None:
    server.execute("CREATE SCHEMA other; CREATE TABLE other.t (a int)")
    listening = script(server, "other") + "db:listen('channel', function() print('told') end)"

    async def run() -> None:
        async with hosted(listening) as kept:
            await wait_for(lambda: is_connected(kept))
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            assert await kept.host.call("insert")
            assert inserted(kept) == 1
            await asyncio.to_thread(server.execute, "NOTIFY channel")
            await wait_for(lambda: "told" in kept.printed)
            assert kept.printed.count("told") == 1

    complete(run())
    server.execute("DROP SCHEMA other CASCADE")


def test_an_idle_connection_that_is_ended_is_made_again_at_once(server: Postgres) -> None:
    async def run() -> None:
        async with hosted(script(server)) as kept:
            await wait_for(lambda: is_connected(kept))
            await asyncio.to_thread(server.execute, TERMINATE)
            await wait_for(lambda: len(kept.printed) == 2)
            assert len(kept.others) == 1
            assert kept.others[0].startswith("database 'postgres': ")
            assert kept.others[0].endswith("; connecting again")

    complete(run())


def test_queries_lose_their_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_connection, "PATIENCE", 0.2)
    text = "db = pg:new('host=/nowhere') function query() print(db:execute('SELECT 1')) end"

    async def run() -> None:
        async with hosted(text) as kept:
            first = kept.host.call("query")
            await asyncio.sleep(0.1)
            second = kept.host.call("query")
            assert await first
            assert not second.done()
            assert await second
            assert kept.printed == ["nil\tno connection to the database for 0.2 s"] * 2

    complete(run())


def test_too_many_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_connection, "MOST_WAITING", 3)
    text = "db = pg:new('host=/nowhere') function query() print(db:execute('SELECT 1')) end"

    async def run() -> None:
        async with hosted(text) as kept:
            for _ in range(4):
                kept.host.call("query")
            assert kept.printed == ["nil\t3 queries wait for the database already"]

    complete(run())


def test_attempts_become_rarer_and_the_log_says_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def run() -> None:
        async with hosted("db = pg:new('host=/nowhere dbname=x')") as kept:
            await wait_for_real(lambda: len(pauses) >= 9)
            assert kept.others[0].startswith("database 'x': cannot connect: ")
            expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
            assert all(0.9 * due <= pause <= 1.1 * due for pause, due in zip(pauses, expected, strict=False))

    async def wait_for_real(condition: object) -> None:
        while not condition():  # type: ignore[operator]
            await real(0.002)

    complete(run())


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A server that takes connections and never says a word."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{tmp_path}/.s.PGSQL.5432")
        sock.listen(8)
        yield tmp_path


def test_a_server_that_is_silent_blocks_nothing(silent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_connection, "PATIENCE", 0.2)
    text = f"db = pg:new('host={silent}') function query() print(db:execute('SELECT 1')) end function quick() end"

    async def run() -> None:
        async with hosted(text) as kept:
            call = kept.host.call("query")
            assert await kept.host.call("quick")
            assert await call
            assert kept.printed == ["nil\tno connection to the database for 0.2 s"]

    complete(run())


def test_the_password_is_in_no_log(server: Postgres) -> None:
    text = f"db = pg:new([[{server.conninfo} password=geheim]])".replace("dbname=postgres", "dbname=nodb")

    async def run() -> None:
        async with hosted(text) as kept:
            await wait_for(lambda: kept.others)
            assert 'database "nodb" does not exist' in kept.others[0]
            assert "geheim" not in str(kept.others)

    complete(run())


def test_a_server_that_is_cut_off_is_noticed_by_the_kernel() -> None:
    """Which says nothing of it for hours, where nobody asks it to."""

    async def run() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            host, port = listener.getsockname()
            async with hosted(f"db = pg:new('host={host} port={port} tcp_user_timeout=7000')"):
                peer, (_, theirs) = await asyncio.to_thread(listener.accept)
                with peer, _socket_at(theirs) as sock:
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000, "of the conninfo"

    complete(run())


@contextmanager
def _socket_at(port: int) -> Iterator[socket.socket]:
    """The TCP socket of this process that is bound to that port, once more."""
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(fd))) as sock:
            if sock.family == socket.AF_INET and sock.getsockname()[1] == port:
                yield sock
                return
    raise AssertionError(f"no socket at port {port}")
