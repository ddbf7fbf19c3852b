"""Interface definitions, and values held against them."""

from __future__ import annotations

import pytest

from supervisor.varlink.interface import (
    Array,
    DefinitionError,
    Dictionary,
    Enum,
    Maybe,
    Mismatch,
    Named,
    Struct,
    parse,
    service_description,
)

TEXT = """
# what it is about
interface org.example.a-b.c1

type Colour (red, green)  # an enum
type Point (x: int, y: ?float, colour: Colour)
method Draw(points: []Point, options: ?[string]string, more: (a: bool, b: object),) -> ()
method None() -> (left: ?[](n: int))
error Empty ()
error InvalidValue(what: string)
"""
INTERFACE = parse(TEXT)
DRAW = INTERFACE.methods["Draw"][0]
GOOD = {
    "points": [{"x": 1, "y": 1, "colour": "red"}, {"x": -1, "colour": "green"}],
    "more": {"a": True, "b": {"any": [1]}},
}


def test_a_definition() -> None:
    assert INTERFACE.name == "org.example.a-b.c1"
    assert INTERFACE.types["Colour"] == Enum(("red", "green"))
    assert DRAW.fields["points"] == Array(Named("Point"))
    assert DRAW.fields["options"] == Maybe(Dictionary(Named("string")))
    assert INTERFACE.methods["None"] == (Struct({}), Struct({"left": Maybe(Array(Struct({"n": Named("int")})))}))
    assert INTERFACE.errors == {"Empty": Struct({}), "InvalidValue": Struct({"what": Named("string")})}


def test_the_shipped_one() -> None:
    assert set(parse(service_description()).methods) == {"GetInfo", "GetInterfaceDescription"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: 'interface' expected, not ''"),
        ("interface", "line 1: '' cannot be here"),
        ("interface a", "'a' cannot be here"),
        ("interface 1.b", "not a token"),
        ("interface a.b\nmethod x() -> ()", "line 2: 'x' cannot be here"),
        ("interface a.b method X()", "'->' expected, not ''"),
        ("interface a.b method X() -> (a, b)", "parameters cannot be an enum"),
        ("interface a.b method X(a: int, a: int) -> ()", "a is defined already"),
        ("interface a.b method X(a: int, b) -> ()", "b has no type"),
        ("interface a.b method X(a: ??int) -> ()", "?? is not a type"),
        ("interface a.b method X(a: number) -> ()", "'number' is not a type"),
        ("interface a.b method X(a: Point) -> ()", "there is no type Point"),
        ("interface a.b method X(_a: int) -> ()", "not a token"),
        ("interface a.b method X(a: int", "',' expected, not ''"),
        ("interface a.b\ntype X (a)\nerror X ()", "line 3: X is defined already"),
        ("interface a.b\nthing X ()", "'thing' is neither type, method nor error"),
    ],
)
def test_wrong_definitions(text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        parse(text)
    assert message in str(raised.value)


def test_values() -> None:
    INTERFACE.check(GOOD, DRAW)
    INTERFACE.check(GOOD | {"options": None}, DRAW)
    INTERFACE.check(GOOD | {"options": {"a": "b"}, "points": []}, DRAW)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"colour": 1}, "colour"),
        ({"points": None}, "points"),
        ({"points": {}}, "points"),
        ({"points": [{"x": 1.0, "colour": "red"}]}, "points"),
        ({"points": [{"x": True, "colour": "red"}]}, "points"),
        ({"points": [{"x": 1, "colour": "blue"}]}, "points"),
        ({"points": [{"x": 1, "colour": "red", "z": 1}]}, "points"),
        ({"points": [{"x": 1, "y": "1", "colour": "red"}]}, "points"),
        ({"points": [{"colour": "red"}]}, "points"),
        ({"options": []}, "options"),
        ({"options": {"a": 1}}, "options"),
        ({"more": {"a": 1, "b": {}}}, "more"),
        ({"more": {"a": True, "b": []}}, "more"),
    ],
)
def test_wrong_values(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(Mismatch) as raised:
        INTERFACE.check(GOOD | wrong, DRAW)
    assert raised.value.field == field
