"""How many parameters an SQL text wants, as the server counts them."""

from __future__ import annotations

import psycopg
import pytest

from tests.postgres import Postgres
from workers.lua.pg import placeholders

TEXTS = [
    ("SELECT 1", 0),
    ("SELECT $1::int", 1),
    ("SELECT $2::int, $1::int", 2),
    ("SELECT $1::int + $1::int", 1),
    ("SELECT '$5', $1::int", 1),
    ("SELECT 'it''s $5', $1::int", 1),
    ("SELECT E'a\\'$9', $1::int", 1),
    ("SELECT e'a''$9', $1::int", 1),
    ("SELECT 'a\\', $1::int", 1),
    ("SELECT date'2026-01-01', $1::int", 1),
    ("SELECT $x$ $7 $$ $x$, $1::int", 1),
    ("SELECT $$ $7 $$, $1::int", 1),
    ('SELECT 1 AS "$4", $1::int', 1),
    ('SELECT 1 AS "a""$4", $1::int', 1),
    ("SELECT 1 AS a$3, $1::int", 1),
    ("-- $8\nSELECT $1::int", 1),
    ("SELECT $1::int -- $8", 1),
    ("/* $8 /* $7 */ $9 */ SELECT $1::int", 1),
    ("SELECT 4 / $1::int", 1),
    ("SELECT 4 - $1::int", 1),
    ("SELECT ARRAY[$1::int,$2::int,$3::int]", 3),
]


@pytest.mark.parametrize(("sql", "count"), TEXTS)
def test_the_server_counts_alike(server: Postgres, sql: str, count: int) -> None:
    assert placeholders(sql.encode()) == count
    with psycopg.connect(server.conninfo) as connection:
        connection.pgconn.prepare(b"it", sql.encode())
        described = connection.pgconn.describe_prepared(b"it")
        assert described.nparams == count, described.error_message


@pytest.mark.parametrize(
    ("sql", "count"),
    [("'$1", 0), ('"$1', 0), ("$a$ $1", 0), ("/* $1", 0), ("-- $1", 0), ("E'$1", 0), ("$99999999", 65535), ("$", 0)],
)
def test_what_has_no_end(sql: str, count: int) -> None:
    assert placeholders(sql.encode()) == count
