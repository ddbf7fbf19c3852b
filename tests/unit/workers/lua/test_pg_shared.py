"""INSERTs that share a transaction: each has its own result, whatever becomes of the others."""

from __future__ import annotations

import asyncio

import pytest

from tests.postgres import Postgres
from tests.unit.workers.lua.scripts import complete, hosted

INSERT = """
db = pg:new([[{conninfo}]])
assert(db:execute("SELECT 1"))
n = 0
function insert()
  n = n + 1
  local value = n
  {before}
  local result, problem = db:execute("{sql}", {{ value }})
  print(value, result and "inserted", problem and problem:match("[^\\n]+"))
end
"""


def outcomes(server: Postgres, calls: int, sql: str, before: str = "") -> dict[int, str]:
    """Return the results of the handlers that insert 1, 2, 3, … at the same time."""

    async def run() -> dict[int, str]:
        async with hosted(INSERT.format(conninfo=server.conninfo, sql=sql, before=before)) as kept:
            assert all(await asyncio.gather(*(kept.host.call("insert") for _ in range(calls))))
            lines = (line.split("\t", 1) for line in kept.printed if not line.startswith("database "))
            return {int(value): outcome for value, outcome in lines}

    return complete(run())


def transactions(server: Postgres) -> int:
    number = server.execute("SELECT count(DISTINCT xmin::text) FROM t")[0][0]
    assert isinstance(number, int)
    return number


@pytest.mark.parametrize("sql", ["INSERT INTO t VALUES ($1)", " insert into t VALUES ($1) RETURNING a"])
def test_those_that_wait_at_the_same_time_are_committed_together(server: Postgres, sql: str) -> None:
    server.execute("CREATE TABLE t (a int)")
    assert set(outcomes(server, 500, sql).values()) == {"inserted\tnil"}
    assert server.execute("SELECT count(*), sum(a) FROM t") == [(500, 125250)]
    assert transactions(server) <= 5


def test_others_are_by_themselves(server: Postgres) -> None:
    server.execute("CREATE TABLE t (a int)")
    server.execute("CREATE FUNCTION add(int) RETURNS void AS 'INSERT INTO t VALUES ($1)' LANGUAGE sql")
    assert set(outcomes(server, 50, "SELECT add($1)").values()) == {"inserted\tnil"}
    assert transactions(server) == 50


@pytest.mark.parametrize("constraint", ["UNIQUE", "UNIQUE DEFERRABLE INITIALLY DEFERRED"])
def test_one_that_fails_takes_no_other_with_it(server: Postgres, constraint: str) -> None:
    server.execute(f"CREATE TABLE t (a int {constraint})")
    told = outcomes(server, 100, "INSERT INTO t VALUES ($1)", before="if value % 10 == 0 then value = value - 9 end")
    # 10, 20, … insert 1, 11, … once more, and print that number a second time
    assert server.execute("SELECT count(*) FROM t") == [(90,)]
    assert server.execute("SELECT count(*) FROM t WHERE a % 10 = 0") == [(0,)]
    assert {value for value, outcome in told.items() if "duplicate key" in outcome} == set(range(1, 100, 10))


def test_each_that_fails_has_its_own_error(server: Postgres) -> None:
    server.execute("CREATE TABLE t (a int CHECK (a % 3 <> 0))")
    told = outcomes(server, 30, "INSERT INTO t VALUES (12 / ($1::int - 10))")
    assert told[10] == "nil\tERROR:  division by zero"
    assert told[11] == 'nil\tERROR:  new row for relation "t" violates check constraint "t_a_check"'
    assert told[9].startswith("nil\tERROR:  new row")
    assert told[13] == "inserted\tnil"
    fine = sum(outcome == "inserted\tnil" for outcome in told.values())
    assert server.execute("SELECT count(*) FROM t") == [(fine,)]


def test_results_are_their_own(server: Postgres) -> None:
    server.execute("CREATE TABLE t (a int)")
    script = f"""
db = pg:new([[{server.conninfo}]])
n = 0
function insert()
  n = n + 1
  local mine = n
  assert(tonumber(db:execute("INSERT INTO t VALUES ($1) RETURNING a", {{ mine }}):fetch().a) == mine)
  assert(tonumber(db:execute("SELECT a FROM t WHERE a = $1", {{ mine }}):fetch().a) == mine)
end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            assert all(await asyncio.gather(*(kept.host.call("insert") for _ in range(1000))))

    complete(run())


def test_one_alone_does_not_wait_for_others(server: Postgres) -> None:
    server.execute("CREATE TABLE t (a int)")
    assert outcomes(server, 1, "INSERT INTO t VALUES ($1)") == {1: "inserted\tnil"}
