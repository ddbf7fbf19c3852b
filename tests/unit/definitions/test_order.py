from __future__ import annotations

import pytest

from supervisor.definitions.order import cycles
from supervisor.definitions.service import Service
from tests.unit.definitions.loading import Files, load_paths


def service(name: str, keys: str = "") -> str:
    return f'{name} = {{ exec = "/x", {keys} }}\n'


def test_names(files: Files) -> None:
    text = service("network") + service("db", 'after = "network"')
    text += service("web", 'depends = { "db", "network" }, conflicts = "maintenance"') + service("maintenance")
    web = files.load(text).services["web"]
    assert (web.depends, web.after, web.conflicts) == (("db", "network"), (), ("maintenance",))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (service("a", 'depends = "b"') + service("b", 'after = "a"'), "depends: cannot be ordered: a -> b -> a"),
        (service("a", 'depends = "bb"') + service("b1b"), "depends[1]: unknown service 'bb', did you mean 'b1b'?"),
        (service("a", 'after = { "a" }'), "after[1]: a service cannot name itself"),
        (service("a", 'depends = "b", conflicts = "b"') + service("b"), "conflicts[1]: depends on 'b' as well"),
    ],
)
def test_bad(files: Files, text: str, problem: str) -> None:
    assert files.problems(text) == [f"a.lua:1: a: {problem}"]


def test_a_cycle_over_files(files: Files) -> None:
    for name, after in (("a", "b"), ("b", "c"), ("c", "a")):
        files.write(service(name, f'depends = "{after}"'), f"{name}.lua")
    problems = files.problems_of(lambda: load_paths(files.folder))
    assert problems == ["a.lua:1: a: depends: cannot be ordered: a -> b -> c -> a"]


def graph(edges: dict[str, str]) -> dict[str, Service]:
    return {name: Service(name, depends=tuple(after)) for name, after in edges.items()}


def test_every_cyclic_part_is_found() -> None:
    found = list(cycles(graph({"a": "b", "b": "a", "c": "da", "d": "e", "e": "c", "f": "ace"})))
    assert found == [["a", "b", "a"], ["c", "d", "e", "c"]]


def test_no_cycle() -> None:
    assert list(cycles(graph({"a": "bcd", "b": "cd", "c": "d", "d": ""}))) == []


def test_a_long_chain() -> None:
    services = {str(number): Service(str(number), depends=(str(number + 1),)) for number in range(5000)}
    assert list(cycles(services | {"5000": Service("5000")})) == []
    (cycle,) = cycles(services | {"5000": Service("5000", after=("0",))})
    assert len(cycle) == 5002
