"""A dependency graph as text: a tree that is indented, levels in the order of the start, Graphviz."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

INDENT = "  "
WHOLE = 1000  # lines of a tree in which everything is repeated; a longer one shows what is below a service once
DEEPEST = 40  # levels that are indented; what is deeper has its level in front
SHOWN = " ..."  # after a name: what is under it has been shown further up


class Tree:
    """`names` in order of definition; `edges` are pairs: a name, and what it is to be under.  Has no cycle."""

    def __init__(self, names: Iterable[str], edges: Iterable[tuple[str, str]]) -> None:
        self.over: dict[str, list[str]] = {name: [] for name in names}  # what each is under
        self.under: dict[str, list[str]] = {name: [] for name in self.over}
        for name, other in edges:
            self.over[name].append(other)
        for name, others in self.over.items():  # so that siblings are in order of definition
            for other in others:
                self.under[other].append(name)

    def roots(self) -> list[str]:
        return [name for name, others in self.over.items() if not others]

    def levels(self) -> list[list[str]]:
        """Each name one level after the last of those that it is under; in order of definition."""
        level: dict[str, int] = dict.fromkeys(self.over, 0)
        for name in self._sorted():
            for other in self.under[name]:
                level[other] = max(level[other], level[name] + 1)
        found: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
        for name, number in level.items():
            found[number].append(name)
        return found

    def lines(self, show: Callable[[str], str]) -> Iterator[str]:
        """Each name under each that it is under, as often as that is: in full as long as the tree has few lines."""
        whole = self._size() <= WHOLE
        expanded: set[str] = set()
        todo = [(name, 0) for name in reversed(self.roots())]
        while todo:
            name, depth = todo.pop()
            again = not whole and name in expanded
            below = self.under[name]
            yield f"{_indent(depth)}{show(name)}{SHOWN if again and below else ''}"
            if not again:
                expanded.add(name)
                todo.extend((other, depth + 1) for other in reversed(below))

    def _sorted(self) -> list[str]:
        """Each name after all that it is under."""
        left = {name: len(others) for name, others in self.over.items()}
        order = self.roots()
        for name in order:  # grows meanwhile
            for other in self.under[name]:
                left[other] -= 1
                if not left[other]:
                    order.append(other)
        return order

    def _size(self) -> int:
        """Lines of the whole tree with everything repeated."""
        size: dict[str, int] = {}
        for name in reversed(self._sorted()):
            size[name] = 1 + sum(size[other] for other in self.under[name])
        return sum(size[name] for name in self.roots())


def dot(names: Iterable[str], edges: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """Graphviz: an arrow from what is needed to what needs it, dashed where that is order alone."""
    yield "digraph services {"
    yield "  rankdir = LR;"
    yield "  node [shape = box];"
    for name in names:
        yield f'  "{name}";'
    for name, other, kind in edges:
        yield f'  "{other}" -> "{name}"{" [style = dashed]" if kind == "after" else ""};'
    yield "}"


def _indent(depth: int) -> str:
    return INDENT * depth if depth <= DEEPEST else f"{INDENT * DEEPEST}({depth}) "
