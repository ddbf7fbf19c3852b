"""Dependency graphs as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ctl.graph import DEEPEST, SHOWN, WHOLE, Tree, dot
from tests.machine_of_services import NEEDS, ORDER, TREE

MACHINE = {name: " ".join(needs) for name, needs in NEEDS.items()}


def tree(needs: dict[str, str]) -> Tree:
    return Tree(needs, ((name, other) for name, others in needs.items() for other in others.split()))


def listing(needs: dict[str, str]) -> list[str]:
    return list(tree(needs).lines(str))


def test_a_service_is_under_each_that_it_needs() -> None:
    assert listing(MACHINE) == TREE.splitlines()


def test_the_order_has_a_line_for_each_level() -> None:
    assert [" ".join(level) for level in tree(MACHINE).levels()] == ORDER.splitlines()


def test_nothing_at_all() -> None:
    assert listing({}) == []
    assert tree({}).levels() == []


def test_names_are_shown_as_somebody_wants_them() -> None:
    assert list(tree({"a": "", "b": "a"}).lines(str.upper)) == ["A", "  B"]


def diamonds(count: int) -> dict[str, str]:
    """`count` diamonds on top of each other: 2 ** count ways from the first to the last."""
    needs = {"top0": ""}
    for number in range(count):
        needs |= {f"left{number}": f"top{number}", f"right{number}": f"top{number}"}
        needs[f"top{number + 1}"] = f"left{number} right{number}"
    return needs


def test_a_tree_that_would_be_too_long_shows_what_is_below_a_service_once() -> None:
    lines = listing(diamonds(3))
    assert not any(line.endswith(SHOWN) for line in lines)
    assert len(lines) == 29
    needs = diamonds(300)
    lines = listing(needs)
    assert len(lines) == len(needs) + 300  # once each, and once more under the second of two
    again = [line for line in lines if line.endswith(SHOWN)]
    assert len(again) == 299, "there is nothing under the last one"
    assert {line.split()[-1] for line in lines if not line.endswith(SHOWN)} == needs.keys()


def test_the_longest_tree_that_is_shown_in_full() -> None:
    wide = {"a": "", "b": "", "x": "a b"} | {f"y{number}": "x" for number in range((WHOLE - 4) // 2)}
    assert len(listing(wide)) == WHOLE
    assert len(listing(wide | {"z": "x"})) < WHOLE


def test_everybody_needs_everybody_before_them() -> None:
    names = [f"s{number}" for number in range(200)]
    needs = {name: " ".join(names[:number]) for number, name in enumerate(names)}
    assert len(listing(needs)) == 1 + 200 * 199 // 2
    assert len(tree(needs).levels()) == 200


def test_a_chain_is_not_indented_for_ever() -> None:
    chain = {"s0": ""} | {f"s{number}": f"s{number - 1}" for number in range(1, 5000)}
    lines = listing(chain)
    assert lines[DEEPEST] == "  " * DEEPEST + f"s{DEEPEST}"
    assert lines[-1] == "  " * DEEPEST + "(4999) s4999"
    assert tree(chain).levels()[-1] == ["s4999"]


def test_graphviz() -> None:
    edges = [("web", "db", "depends"), ("web", "net@blue", "after")]
    assert list(dot(["db", "web", "net@blue"], edges)) == [
        "digraph services {",
        "  rankdir = LR;",
        "  node [shape = box];",
        '  "db";',
        '  "web";',
        '  "net@blue";',
        '  "db" -> "web";',
        '  "net@blue" -> "web" [style = dashed];',
        "}",
    ]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, str]:
    """Names in any order, each of which needs some that were made before it."""
    names = draw(st.permutations([f"s{number}" for number in range(draw(st.integers(0, 8)))]))
    made: list[str] = []
    needs = {}
    for name in names:
        needs[name] = " ".join(sorted(draw(st.sets(st.sampled_from(made))))) if made else ""
        made.append(name)
    return {name: needs[name] for name in draw(st.permutations(names))}


@given(graphs())
def test_what_holds_for_any_graph(needs: dict[str, str]) -> None:
    levels = tree(needs).levels()
    number = {name: at for at, level in enumerate(levels) for name in level}
    assert number.keys() == needs.keys()
    for name, others in needs.items():
        assert number[name] == max((number[other] + 1 for other in others.split()), default=0)
    above: list[str] = []
    edges = set()
    for line in listing(needs):
        name = line.strip()
        depth = (len(line) - len(name)) // 2
        del above[depth:]
        if above:
            edges.add((name, above[-1]))
        assert bool(above) == bool(needs[name])
        above.append(name)
    assert edges == {(name, other) for name, others in needs.items() for other in others.split()}


@pytest.mark.parametrize("names", [["a", "b"], ["b", "a"]])
def test_siblings_are_in_order_of_definition(names: list[str]) -> None:
    needs = {"x": ""} | dict.fromkeys(names, "x")
    assert listing(needs) == ["x", *(f"  {name}" for name in names)]
