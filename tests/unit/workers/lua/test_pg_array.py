"""PostgreSQL's array text, both ways, against the server and against itself."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.postgres import Postgres
from tests.unit.workers.lua.scripts import prints, raises

SHOW = """
local function show(value)
  if type(value) ~= "table" then return value == nil and "nil" or string.format("%q", value) end
  local texts = {}
  for i = 1, table.maxn(value) do texts[i] = show(value[i]) end
  return "{" .. table.concat(texts, ", ") .. "}"
end
"""


@pytest.mark.parametrize(
    ("list_", "text"),
    [
        ("{}", "{}"),
        ("{'a', 'b'}", '{"a","b"}'),
        ("{'a b', '', 'NULL', 'a,b', '{}'}", '{"a b","","NULL","a,b","{}"}'),
        (r"{'q\"x', 'b\\s', 'n\nl'}", '{"q\\"x","b\\\\s","n\nl"}'),
        ("{1, 2.5, 1e6, -3}", "{1,2.5,1000000,-3}"),
        ("{true, false}", "{1,0}"),
        ("{'a', nil, 'c'}", '{"a",NULL,"c"}'),
        ("{{1, 2}, {3, 4}}", "{{1,2},{3,4}}"),
    ],
)
def test_encode(list_: str, text: str) -> None:
    assert "\n".join(prints(f"print(pg:encode_array({list_}))")) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "{}"),
        ("{}", "{}"),
        ("{a,b}", '{"a", "b"}'),
        ('{"a b","","NULL",NULL,x}', '{"a b", "", "NULL", nil, "x"}'),
        (r'{"q\"x","b\\s"}', r'{"q\"x", "b\\s"}'),
        ("{1,2.5,t}", '{"1", "2.5", "t"}'),
        ("{{1,2},{3,4}}", '{{"1", "2"}, {"3", "4"}}'),
        ("[0:1]={a,b}", '{"a", "b"}'),
        ("[1:1][-2:-1]={{a,b}}", '{{"a", "b"}}'),
        ("{NULL}", "{}"),
        ("{null,a}", '{nil, "a"}'),
    ],
)
def test_decode(text: str, shown: str) -> None:
    assert prints(f"{SHOW} print(show(pg:decode_array([[{text}]])))") == [shown]


NONE = [" ", "a", "{", "{a", "{a,", "{a,}", "{,a}", "{a}b", '{"a}', '{"a"b}', "{a}}", "{{a}", "{a}\n"]


@pytest.mark.parametrize("text", [*NONE, "[0:1]{a}", "={a}", "[]={a}b"])
def test_what_is_no_array(text: str) -> None:
    problem = raises(f"\nlocal l = pg:decode_array([=[{text}]=])")
    assert problem.startswith("script:2: bad argument #1 to 'decode_array' (array of PostgreSQL expected, got ")


@pytest.mark.parametrize(
    ("list_", "problem"),
    [
        ("{a=1}", "array expected, got a table with the key 'a'"),
        ("{[1.5]=1}", "array expected, got a table with the key '1.5'"),
        ("{[0]=1}", "array expected, got a table with the key '0'"),
        ("{[1e9]=1}", "array expected, got a table with the last key 1000000000 and 1 values"),
        ("{print}", "array of nil, boolean, number, string or array expected, got function in it"),
        ("{{{{{{{1}}}}}}}", "at most 6 dimensions expected"),
    ],
)
def test_what_cannot_be_encoded(list_: str, problem: str) -> None:
    assert raises(f"\nlocal x = pg:encode_array({list_})") == f"script:2: bad argument #1 to 'encode_array' ({problem})"


def test_a_list_that_holds_itself() -> None:
    assert raises("l = {} l[1] = l local x = pg:encode_array(l)").endswith("(at most 6 dimensions expected)")


# printable and not, without NUL, which PostgreSQL's text cannot hold
TEXTS = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8))


def test_the_server_reads_and_writes_the_same(server: Postgres) -> None:
    with psycopg.connect(server.conninfo) as connection:

        @given(TEXTS)
        def check(items: list[str | None]) -> None:
            hexes = [None if item is None else item.encode().hex() for item in items]
            list_ = ",".join("nil" if item is None else f"sodium.hex2bin('{item}')" for item in hexes)
            (encoded,) = prints(f"print(sodium.bin2hex(pg:encode_array({{{list_}}})))")
            text = bytes.fromhex(encoded).decode()
            row = connection.execute("SELECT %s::text[], %s::text[]::text", (text, text)).fetchone()
            assert row is not None
            while items and items[-1] is None:  # a Lua list does not tell of them
                items.pop()
            assert row[0] == items
            written = row[1].encode().hex()
            script = f"""
l = pg:decode_array(sodium.hex2bin("{written}"))
for i = 1, {len(items)} do print(l[i] and "x" .. sodium.bin2hex(l[i])) end
"""
            assert prints(script) == ["nil" if item is None else f"x{item}" for item in hexes[: len(items)]]

        check()
