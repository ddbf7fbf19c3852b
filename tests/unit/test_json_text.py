"""JSON that every parser takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.json_text import dumps, dumps_exactly, loads_exactly

# what Python has in a text: characters, bytes that are not UTF-8, and surrogates that somebody's JSON has
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from('\0\\"ud0\ud800\udcff\udbff\udc80')))
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(TEXTS, inner)),
    max_leaves=10,
)


def strings(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case list():
            return [text for item in value for text in strings(item)]
        case dict():
            return [text for pair in value.items() for item in pair for text in strings(item)]
        case _:
            return []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/caf\udce9", r'"/caf\\xe9"'),
        ("\ud800", r'"\\ud800"'),
        ("\udc7f", r'"\\udc7f"'),
        ("\U0001f600\udcff", r'"\ud83d\ude00\\xff"'),
        (r"\udcff", r'"\\udcff"'),
        ("\\\udcff", r'"\\\\xff"'),
        ("ü\n\0", r'"\u00fc\n\u0000"'),
    ],
)
def test_for_others(text: str, shown: str) -> None:
    assert dumps(text) == shown
    assert dumps({text: [text]}) == f"{{{shown}: [{shown}]}}"


@given(VALUES)
def test_every_text_is_unicode(value: Any) -> None:
    for text in (dumps(value), dumps_exactly(value)):
        for found in strings(json.loads(text)):
            found.encode()


def merged(value: Any) -> Any:
    """JSON has no two surrogates that make a pair: they are a character."""
    return json.loads(json.dumps(value))


@given(VALUES)
def test_what_is_written_exactly_is_read_as_it_was(value: Any) -> None:
    assert loads_exactly(dumps_exactly(value)) == merged(value)


def test_what_an_older_version_has_written_is_read() -> None:
    assert loads_exactly(r'{"file": "/caf\udce9.lua"}') == {"file": "/caf\udce9.lua"}
    assert loads_exactly('{"a": 1}') == {"a": 1}
