"""The database, on a real server."""

from __future__ import annotations

import asyncio

import pytest

from tests.postgres import Postgres
from tests.unit.workers.lua.scripts import complete, hosted, prints, raises, wait_for


def connected(server: Postgres, schema: str = "") -> str:
    return f"db = pg:new([[{server.conninfo}]]{schema}) "


@pytest.mark.parametrize(
    ("fetch", "printed"),
    [
        ("fetch()", "1\tnil\tx"),
        ("fetch({})", "1\tnil\tx"),
        ("fetch({}, 'a')", "1\tnil\tx"),
        ("fetch(nil, 'a')", "1\tnil\tx"),
        ("fetch({ b = 'old' })", "1\tnil\tx"),
    ],
)
def test_rows_by_name(server: Postgres, fetch: str, printed: str) -> None:
    script = connected(server) + f"row = db:execute(\"SELECT 1 AS a, NULL AS b, 'x' AS c\"):{fetch} "
    assert prints(script + "print(row.a, row.b, row.c)") == [printed]


def test_rows_by_number(server: Postgres) -> None:
    script = connected(server) + "row = db:execute('SELECT 1, NULL, 3'):fetch({ 9, 9, 9, 9 }, 'n') "
    assert prints(script + "print(row[1], row[2], row[3], row[4])") == ["1\tnil\t3\t9"]


def test_the_row_that_is_given_is_filled_and_returned(server: Postgres) -> None:
    script = """
local result, row, n = db:execute("SELECT i, i * 2 AS twice FROM generate_series(1, 3) AS i"), {}, 0
while result:fetch(row, "a") do n = n + row.twice end
print(n, result:fetch(row), row.i, result:fetch(row) == nil, result:fetch(row) == row)
"""
    assert prints(connected(server) + script) == ["12\tnil\t3\ttrue\tfalse"]


def test_a_result_without_rows(server: Postgres) -> None:
    script = connected(server) + "print(db:execute('CREATE TABLE t ()'):fetch(), db:execute('SELECT FROM t'):fetch())"
    assert prints(script) == ["nil\tnil"]
    assert prints(connected(server) + "print(db:execute('')) print(db:execute('', {}))") == ["pg result"] * 2


def test_values_are_the_servers_text(server: Postgres) -> None:
    script = r"""
local row = db:execute([[SELECT true AS t, 1.50::numeric AS n, 1e100::float8 AS f, '\x00ff'::bytea AS b,
  '{a,NULL}'::text[] AS l, 'ä' AS u, '' AS e, date '2026-11-25' AS d]]):fetch()
print(row.t, row.n, row.f, row.b, row.l, row.u, row.e == "", row.d)
"""
    assert prints(connected(server) + script) == ["t\t1.50\t1e+100\t\\x00ff\t{a,NULL}\tä\ttrue\t2026-11-25"]


def test_many_rows_and_columns(server: Postgres) -> None:
    script = """
local columns = {}
for i = 1, 1000 do columns[i] = i .. " AS c" .. i end
local row = db:execute("SELECT " .. table.concat(columns, ",")):fetch()
print(row.c1, row.c1000)
local result, sum, row = db:execute("SELECT i, repeat('x', i % 100) AS text FROM generate_series(1, 50000) AS i"), 0, {}
while result:fetch(row) do sum = sum + #row.text assert(#row.text == row.i % 100) end
print(sum)
"""
    assert prints(connected(server) + script) == ["1\t1000", "2475000"]


@pytest.mark.parametrize(
    ("value", "cast", "text"),
    [
        ("'x'", "text", "x"),
        ("''", "text", ""),
        (r"'\\\'\"$1'", "text", "\\'\"$1"),
        ("42", "int", "42"),
        ("1e6", "int", "1000000"),
        ("-0", "int", "0"),
        ("2^53", "bigint", "9007199254740992"),
        ("1e15", "bigint", "1000000000000000"),
        ("1e20", "numeric", "100000000000000000000"),
        ("0.1", "numeric", "0.1"),
        ("1/3", "float8", "0.3333333333333333"),
        ("0.1+0.2", "float8", "0.30000000000000004"),
        ("1e-300", "float8", "1e-300"),
        ("5e-324", "float8", "5e-324"),
        ("1/0", "float8", "Infinity"),
        ("-1/0", "float8", "-Infinity"),
        ("0/0", "float8", "NaN"),
        ("true", "bool", "t"),
        ("false", "bool", "f"),
        ("true", "text", "1"),
        ("false", "int", "0"),
        ("nil", "int", "nil"),
    ],
)
def test_parameters(server: Postgres, value: str, cast: str, text: str) -> None:
    script = connected(server) + f"print(assert(db:execute('SELECT $1::{cast} AS x', {{{value}}})):fetch().x)"
    assert prints(script) == [text]


@pytest.mark.parametrize(
    "params", ["1, nil, 3", "nil, nil, 3", "1, nil, nil", "nil, nil, nil", "", "[2] = 'x'", "[3] = 3"]
)
def test_parameters_that_are_nil(server: Postgres, params: str) -> None:
    script = (
        connected(server) + f"local p = {{{params}}} "
        "local row = assert(db:execute('SELECT $1::text, $2::text, $3::text', p)):fetch({}, 'n') "
        "for i = 1, 3 do print(row[i] == (p[i] and tostring(p[i]))) end"
    )
    assert prints(script) == ["true"] * 3


def test_too_many_parameters(server: Postgres) -> None:
    script = connected(server) + "print(db:execute('SELECT $1::int', {1, 2}))"
    assert prints(script)[0].startswith("nil\tERROR:  bind message supplies 2 parameters")


def test_many_parameters(server: Postgres) -> None:
    script = """
local names, values = {}, {}
for i = 1, 7000 do names[i] = "$" .. i .. "::int" values[i] = i end
print(db:execute("SELECT array_length(ARRAY[" .. table.concat(names, ",") .. "], 1) AS n", values):fetch().n)
"""
    assert prints(connected(server) + script) == ["7000"]


def test_several_statements(server: Postgres) -> None:
    script = (
        connected(server) + "print(db:execute('CREATE TABLE t (a int); INSERT INTO t VALUES (5); TABLE t'):fetch().a)"
    )
    assert prints(script) == ["5"]
    script = (
        connected(server)
        + "print(db:execute('INSERT INTO t VALUES (6); SELECT nope')) print(db:execute('TABLE t'):fetch().a)"
    )
    lines = prints(script)
    assert lines[0].startswith('nil\tERROR:  column "nope" does not exist')
    assert lines[-1] == "5", "all of it or nothing"


def test_errors_are_values(server: Postgres) -> None:
    script = (
        connected(server)
        + "print(db:execute('SELEC')) print(db:execute('SELECT 1/$1', {0})) "
        + "print(db:execute('SELECT 7'):fetch({}, 'n')[1])"
    )
    lines = prints(script)
    assert lines[0].startswith('nil\tERROR:  syntax error at or near "SELEC"')
    assert "nil\tERROR:  division by zero" in lines
    assert lines[-1] == "7"


@pytest.mark.parametrize("copy", ["COPY t FROM STDIN", "COPY t TO STDOUT"])
def test_copy_is_refused_and_what_waits_goes_on(server: Postgres, copy: str) -> None:
    server.execute("CREATE TABLE t (a int)")
    script = connected(server) + f"print(db:execute('{copy}')) print(db:execute('SELECT 7 AS x'):fetch().x)"

    async def run() -> None:
        async with hosted(script) as kept:
            printed = [line for line in kept.printed if not line.startswith("database ")]
            assert printed[0].startswith("nil\tthe connection to the database is lost")
            assert printed[1] == "7"

    complete(run())


def test_a_schema(server: Postgres) -> None:
    server.execute(
        'CREATE SCHEMA "Odd ""name"; CREATE TABLE "Odd ""name".t (a int); INSERT INTO "Odd ""name".t VALUES (5)'
    )
    script = connected(server, ", 'Odd \"name'") + "print(db:execute('TABLE t'):fetch().a)"
    try:
        assert prints(script) == ["5"]
    finally:
        server.execute('DROP SCHEMA "Odd ""name" CASCADE')


def test_two_connections(server: Postgres) -> None:
    script = (
        f"a, b = pg:new([[{server.conninfo}]]), pg:new([[{server.conninfo}]]) "
        "function pid(db) return db:execute('SELECT pg_backend_pid() AS x'):fetch().x end "
        "print(pid(a) == pid(a), pid(a) == pid(b))"
    )
    assert prints(script) == ["true\tfalse"]


def test_a_connection_is_made_in_the_background() -> None:
    assert prints("db = pg:new('host=/nowhere dbname=x') print(db)") == ["pg connection"]


def test_handlers_share_the_connection_while_they_wait(server: Postgres) -> None:
    script = connected(server) + (
        "function slow() print(db:execute('SELECT pg_sleep($1)', {0.2}) ~= nil) end function quick() print('quick') end"
    )

    async def run() -> None:
        async with hosted(script) as kept:
            await wait_for(lambda: kept.printed)  # connected
            calls = [kept.host.call(name) for name in ("slow", "slow", "quick")]
            assert kept.printed[1:] == ["quick"]
            assert all(await asyncio.gather(*calls))
            assert kept.printed[1:] == ["quick", "true", "true"]

    complete(run())


def test_results_come_in_the_order_of_the_queries(server: Postgres) -> None:
    """With and without parameters, good and bad, more of them than are sent at a time."""
    script = (
        connected(server)
        + """
local n = 0
function one()
  n = n + 1
  local mine = n
  if mine % 7 == 0 then
    local result, problem = db:execute("SELECT 1 / $1::int", { 0 })
    assert(result == nil and problem:find("division by zero"))
  elseif mine % 5 == 0 then
    assert(tonumber(db:execute("SELECT " .. mine .. " AS n"):fetch().n) == mine)
  else
    assert(tonumber(db:execute("SELECT $1::int AS n", { mine }):fetch().n) == mine)
  end
end
"""
    )

    async def run() -> None:
        async with hosted(script) as kept:
            calls = [kept.host.call("one") for _ in range(2000)]
            assert all(await asyncio.gather(*calls))

    complete(run())


def test_each_query_is_a_transaction_of_its_own(server: Postgres) -> None:
    server.execute("CREATE TABLE t (a int PRIMARY KEY)")
    script = connected(server) + "function one() db:execute('INSERT INTO t VALUES ($1)', {1}) end"

    async def run() -> None:
        async with hosted(script) as kept:
            assert all(await asyncio.gather(*(kept.host.call("one") for _ in range(100))))

    complete(run())
    assert server.execute("SELECT count(*) FROM t") == [(1,)]


def test_inserts_from_many_handlers(server: Postgres) -> None:
    server.execute("CREATE TABLE t (a int)")
    script = (
        connected(server) + "n = 0 function one() n = n + 1 assert(db:execute('INSERT INTO t VALUES ($1)', {n})) end"
    )

    async def run() -> None:
        async with hosted(script) as kept:
            for _ in range(20):
                assert all(await asyncio.gather(*(kept.host.call("one") for _ in range(100))))

    complete(run())
    assert server.execute("SELECT count(*), sum(a) FROM t") == [(2000, 2001000)]


def test_big_values_both_ways(server: Postgres) -> None:
    script = connected(server) + (
        "local big = ('x'):rep(5e6) function one() local r = assert(db:execute('SELECT $1::text AS x', {big})) "
        "print(r:fetch().x == big) end"
    )

    async def run() -> None:
        async with hosted(script) as kept:
            assert all(await asyncio.gather(*(kept.host.call("one") for _ in range(5))))
            assert kept.printed[1:] == ["true"] * 5

    complete(run())


def test_notices_disturb_nothing(server: Postgres) -> None:
    script = (
        connected(server)
        + "print(db:execute(\"DO $$BEGIN RAISE NOTICE 'x'; END$$\")) print(db:execute('SELECT 1 AS x', {}):fetch().x)"
    )
    assert prints(script) == ["pg result", "1"]


MANY = "local function many(n) local t = {} for i = 1, n do t[i] = i end return unpack(t) end"


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("pg:new()", "bad argument #1 to 'new' (string expected, got nil)"),
        ("pg:new('x', {})", "bad argument #2 to 'new' (string expected, got table)"),
        ("pg:new('x', 'y', 1)", "bad argument #3 to 'new' (no more than 2 expected)"),
        ("db:execute()", "bad argument #1 to 'execute' (string expected, got nil)"),
        ("db:execute('x', 5)", "bad argument #2 to 'execute' (table expected, got number)"),
        ("db:execute('x', 'a', 'b')", "bad argument #2 to 'execute' (table expected, got string)"),
        ("db:execute('x', {}, 1)", "bad argument #3 to 'execute' (no more than 2 expected)"),
        (
            "db:execute('x', {1, {}})",
            "bad argument #2 to 'execute' (nil, boolean, number or string expected as parameter 2, got table)",
        ),
        (
            "db:execute('x', {name=1})",
            "bad argument #2 to 'execute' (array expected, got a table with the key 'name')",
        ),
        (
            "db:execute('x', {[1e9]=1})",
            "bad argument #2 to 'execute' (array expected, got a table with the last key 1000000000 and 1 values)",
        ),
        ("db:execute('x', {many(7001)})", "bad argument #2 to 'execute' (at most 7000 parameters expected, got 7001)"),
        (
            "db.execute('x')",
            "calling 'execute' on bad self (pg connection expected, got string); is it called with a colon?",
        ),
        ("db:listen('x')", "bad argument #2 to 'listen' (function expected, got nil)"),
        ("db:listen('', print)", "bad argument #1 to 'listen' (channel of 1 to 63 bytes expected)"),
        ("db:listen(('x'):rep(64), print)", "bad argument #1 to 'listen' (channel of 1 to 63 bytes expected)"),
        ("db:listen(nil, print)", "bad argument #1 to 'listen' (string expected, got nil)"),
        ("db:listen('x', print, 1)", "bad argument #3 to 'listen' (no more than 2 expected)"),
        ("pg:encode_array()", "bad argument #1 to 'encode_array' (table expected, got nil)"),
        ("pg:decode_array()", "bad argument #1 to 'decode_array' (string expected, got nil)"),
    ],
)
def test_wrong_arguments(call: str, problem: str) -> None:
    assert raises(f"{MANY} db = pg:new('host=/nowhere')\nlocal x = {call}") == f"script:2: {problem}"


def test_a_conninfo_that_is_none() -> None:
    problem = raises("\nlocal db = pg:new('nonsense')")
    assert problem.startswith('script:2: bad argument #1 to \'new\' (conninfo expected: missing "=" after "nonsense"')


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("fetch(5)", "bad argument #1 to 'fetch' (table expected, got number)"),
        ("fetch({}, 'x')", "bad argument #2 to 'fetch' ('a' or 'n' expected, got 'x')"),
        ("fetch({}, 'a', 1)", "bad argument #3 to 'fetch' (no more than 2 expected)"),
    ],
)
def test_wrong_arguments_of_fetch(server: Postgres, call: str, problem: str) -> None:
    script = connected(server) + f"r = db:execute('SELECT 1')\nlocal x = r:{call}"
    assert raises(script) == f"script:2: {problem}"


def test_a_nul_is_not_cut_off(server: Postgres) -> None:
    script = connected(server) + r"print(db:execute('SELECT $1::text', {'a\0b'})) print(db:execute('SELECT 1\0'))"
    assert prints(script) == ["nil\tthe query or a parameter has a NUL in it, which PostgreSQL's text cannot hold"] * 2


BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


def test_a_connection_that_the_script_forgets_ends(server: Postgres) -> None:
    script = f"""
function one() print(pg:new([[{server.conninfo}]]):execute("SELECT 1 AS x"):fetch().x) end
function listen() pg:new([[{server.conninfo}]]):listen("x", function() print("told") end) end
function collect() collectgarbage() collectgarbage() end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            for _ in range(5):
                assert await kept.host.call("one")
            assert kept.printed.count("1") == 5
            assert await kept.host.call("listen")
            await wait_for(lambda: len(kept.printed) == 11)
            assert server.execute(BACKENDS) == [(6,)]
            assert await kept.host.call("collect")
            await wait_for(lambda: server.execute(BACKENDS) == [(1,)])
            server.execute("NOTIFY x")
            await wait_for(lambda: "told" in kept.printed)

    complete(run())


def test_an_error_of_the_commit_is_the_querys(server: Postgres) -> None:
    server.execute("CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    script = connected(server) + (
        "for i = 1, 2 do local result, problem = db:execute('INSERT INTO t VALUES ($1)', {1}) "
        "print(result and 'inserted', problem and problem:match('[^\\n]+')) end "
        "print(db:execute('SELECT $1::int AS x', {7}):fetch().x)"
    )
    assert prints(script) == [
        "inserted\tnil",
        'nil\tERROR:  duplicate key value violates unique constraint "t_a_key"',
        "7",
    ]
