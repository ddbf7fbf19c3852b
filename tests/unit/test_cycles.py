"""No module imports itself by way of others, counting imports for types and imports in functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.unit.test_arrows import MODULES

# modules that still import each other: a list that only becomes shorter
KNOWN: tuple[frozenset[str], ...] = ()


def cycles(imports: Mapping[str, Iterable[str]]) -> set[frozenset[str]]:
    """Return the largest sets of modules that import each other, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = set()

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in imports[name]:
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            place = stack.index(name)
            component = frozenset(stack[place:])
            del stack[place:]
            if len(component) > 1:
                found.add(component)

    for name in imports:
        if name not in order:
            visit(name)
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {module.name for module in MODULES}
    found = cycles({module.name: sorted(module.imports & names - {module.name}) for module in MODULES})
    unknown = [sorted(cycle) for cycle in found if not any(cycle <= known for known in KNOWN)]
    assert unknown == [], "the modules of each list import each other"


def test_every_known_cycle_is_still_there() -> None:
    names = {module.name for module in MODULES}
    found = cycles({module.name: sorted(module.imports & names - {module.name}) for module in MODULES})
    assert all(any(cycle <= known for cycle in found) for known in KNOWN), "take what is gone out of the list"


def test_cycles_are_found() -> None:
    imports = {"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": [], "e": ["a", "f"], "f": ["e"]}
    assert cycles(imports) == {frozenset("bc"), frozenset("ef")}
