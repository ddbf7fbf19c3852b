from __future__ import annotations

import pytest

from tests.unit.process.launched import service, shell, start

ENV = {
    "ONE": "one", "TWO": " two  words\t", "QUOTED": """a "b  c" 'd "e' f"g h"i""", "EMPTY": "",
    "DOLLAR": "$ONE", "_9": "x",
}  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("plain", ("plain",)),
        ("$ONE", ("one",)),
        ("$TWO", ("two", "words")),
        ("$QUOTED", ("a", "b  c", 'd "e', "fg hi")),
        ("$EMPTY", ()),
        ("$MISSING", ()),
        ("$_9", ("x",)),
        ("${TWO}", (" two  words\t",)),
        ("${EMPTY}", ("",)),
        ("--a=${ONE}/${MISSING}${_9}", ("--a=one/x",)),
        ("a$ONE", ("a$ONE",)),
        ("$ONE/x", ("$ONE/x",)),
        ("$$ONE", ("$ONE",)),
        ("$${ONE}", ("${ONE}",)),
        ("$5$salt$hash", ("$5$salt$hash",)),
        ("${not a name}", ("${not a name}",)),
        ("$", ("$",)),
        ("$DOLLAR", ("$ONE",)),
    ],
)
def test_arguments(argument: str, words: tuple[str, ...]) -> None:
    outcome = start(service(env=ENV, expand_env=True), ("/usr/bin/printf", "%s\n", "first", argument, "last"))
    assert outcome.output.splitlines() == ["first", *words, "last"]


def test_many_words_and_long_ones() -> None:
    env = {"MANY": "w " * 5000, "LONG": "x" * 100_000}
    outcome = start(service(env=env, expand_env=True), ("/bin/sh", "-c", "echo $# ${#1}", "sh", "${LONG}", "$MANY"))
    assert outcome.output.split() == ["5001", "100000"]


def test_a_program_gets_them_where_its_definition_asks_for_it() -> None:
    argv = ("/bin/echo", "$NAMES", "${LISTEN_FDS}")
    for keys, output in (({"expand_env": True}, "a b \n"), ({}, "$NAMES ${LISTEN_FDS}\n")):
        outcome = start(service(env={"NAMES": "a  b"}, **keys), argv)
        assert outcome.output == output


def test_the_program_itself_is_none_of_the_arguments() -> None:
    assert shell(service(expand_env=True), "echo $$A ${A}", env={"A": "x"}).split()[-1] == "x"
