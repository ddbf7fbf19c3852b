from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from tests.postgres import Postgres, postgres, server_programs
from tests.unit.workers.reaper.accounting.databases import CHECKS, DECEMBER
from tests.unit.workers.reaper.rows import NO_PARAMETERS, NOVEMBER, row
from workers.reaper.accounting import postgresql
from workers.reaper.accounting.database import Database, ask, open_database
from workers.reaper.accounting.query import Query
from workers.reaper.options import DatabaseError

pytestmark = pytest.mark.skipif(server_programs() is None, reason="needs a PostgreSQL server: make packages")
Use = Callable[[Database], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def running() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture
def server(running: Postgres) -> Postgres:
    running.execute("DROP SCHEMA public CASCADE")
    running.execute("CREATE SCHEMA public")
    return running


def with_database(server: Postgres, use: Use) -> None:
    async def run() -> None:
        database = open_database(f"postgresql:{server.conninfo}")
        try:
            await use(database)
        finally:
            await database.close()

    asyncio.run(run())


async def _insert(database: Database, *numbers: int) -> None:
    await database.insert([row(number) for number in numbers])


@CHECKS
def test_it_does_what_is_asked(server: Postgres, check: Use) -> None:
    with_database(server, check)


def test_a_partition_for_each_month_of_the_rows(server: Postgres) -> None:
    async def use(database: Database) -> None:
        await database.insert([row(1), row(2, ended=DECEMBER), row(3, ended=0.0), row(4, ended=NOVEMBER + 86400 * 45)])

    with_database(server, use)
    found = server.execute("SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhparent"
                           " WHERE relkind = 'p' ORDER BY 1")  # fmt: skip
    months = ["1970_01", "2026_11", "2026_12", "2027_01"]
    assert [name for (name,) in found] == [f"accounting_{month}" for month in months]
    assert server.execute("SELECT count(*) FROM accounting_2026_12") == [(1,)]


def test_many_hosts_begin_at_once(server: Postgres) -> None:
    async def run() -> None:
        databases = [open_database(f"postgresql:{server.conninfo}") for _ in range(8)]
        await asyncio.gather(*(database.insert([row(1, host=f"h{n}")]) for n, database in enumerate(databases)))
        assert (await databases[0].totals(Query())).all.cgroups == 8
        for database in databases:
            await database.close()

    asyncio.run(run())


def test_a_row_that_is_refused_does_not_keep_the_others_away(server: Postgres) -> None:
    async def use(database: Database) -> None:
        bad = row(2, path="a\0b")
        assert await database.insert([row(1), bad, row(3)]) == 1
        assert (await database.totals(Query())).all.cgroups == 2

    with_database(server, use)


def test_a_refused_row_logs_nothing_of_the_library(server: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    """Errors that psycopg raises are logged by it as well, which would be a raw line on stderr."""
    caplog.set_level(0)

    async def use(database: Database) -> None:
        await _insert(database, 0)
        assert await database.insert([row(1), row(2, path="a\0b"), row(3, memory_peak=2**70)]) == 2
        server.execute("ALTER TABLE accounting ADD CONSTRAINT none CHECK (cgroup < 4)")
        with pytest.raises(DatabaseError, match='violates check constraint "none"'):
            await _insert(database, *range(5, 300))

    with_database(server, use)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("psycopg")] == []


def test_it_goes_on_after_the_server_has_been_away(server: Postgres) -> None:
    async def use(database: Database) -> None:
        await _insert(database, 1)
        server.kill()
        for _ in range(2):
            with pytest.raises(DatabaseError, match="PostgreSQL"):
                await _insert(database, 1, 2)
        server.start()
        await _insert(database, 1, 2)
        assert (await database.totals(Query())).all.cgroups == 2

    with_database(server, use)


def test_a_server_that_does_not_answer(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(database: Database) -> None:
        await _insert(database, 1)
        assert server._process is not None
        ((backend,),) = server.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        assert isinstance(backend, int)
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(DatabaseError, match="did not answer"):
                await _insert(database, 2)
        finally:
            os.kill(backend, signal.SIGCONT)
        await _insert(database, 2)

    monkeypatch.setattr(postgresql, "PATIENCE", 0.5)
    with_database(server, use)


def test_a_schema_of_another_version_is_not_touched(server: Postgres) -> None:
    server.execute("CREATE TABLE accounting_version (version integer)")
    server.execute("INSERT INTO accounting_version VALUES (7)")

    async def use(database: Database) -> None:
        with pytest.raises(DatabaseError, match="version 7, 1 is wanted"):
            await _insert(database, 1)

    with_database(server, use)


def test_a_host_forgets_its_own_rows_alone(server: Postgres) -> None:
    async def use(database: Database) -> None:
        await database.insert([row(1), row(2, host="other")])
        assert await database.forget("host", time.time() - NOVEMBER - 60, 10) == 1
        assert [group.name for group in (await database.totals(Query(by="host"))).groups] == ["other"]

    with_database(server, use)


def test_who_only_asks_makes_no_tables(server: Postgres) -> None:
    with pytest.raises(DatabaseError, match="there is no accounting"):
        ask(f"postgresql:{server.conninfo}", NO_PARAMETERS)
    assert server.execute("SELECT to_regclass('accounting'), to_regclass('accounting_version')") == [(None, None)]
