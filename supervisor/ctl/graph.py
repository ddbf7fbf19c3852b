"""A dependency graph: as an indented tree, as levels in the order of the start, for Graphviz, and with its times."""

from __future__ import annotations

from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Any

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
        yield f"  {_quoted(name)};"
    for name, other, kind in edges:
        style = " [style = dashed]" if kind == "after" else ""
        yield f"  {_quoted(other)} -> {_quoted(name)}{style};"
    yield "}"


def _quoted(name: str) -> str:
    """A name in the language of Graphviz, in which only a quote ends it."""
    return '"' + printable(name).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _indent(depth: int) -> str:
    return INDENT * depth if depth <= DEEPEST else f"{INDENT * DEEPEST}({depth}) "


# times


class Span:
    """The last start of a service from rest, in seconds since the first of all: `ready` is None where it never was.

    Restarts since then are no part of it: nobody waited for them.
    """

    def __init__(self, name: str, state: str, asked: float, started: float, ready: float | None) -> None:
        self.name = name
        self.state = state
        self.asked = asked
        self.started = started
        self.ready = ready
        self.critical = False

    @property
    def has_failed(self) -> bool:
        """Also where it was ready for a moment: it is not what the others wait for any more."""
        return self.state in ("failed", "backoff")

    @property
    def took(self) -> float | None:
        return None if self.ready is None else self.ready - self.started

    def waited_for(self, other: Span) -> bool:
        """Whether the other one became ready while this one, asked for already, had not begun."""
        return other.ready is not None and self.asked < other.ready <= self.started


class Times:
    """`spans` in the order of their starts; `zero` is the Unix time that they count from.

    `edges` are pairs of spans, each with one that it waited for.  `nodes` are those of the control interface, and
    the edges given are pairs: a name, and what it needs or comes after.  The critical path leads to the
    one of `wanted` that was ready last; where that is empty, to the last one of the first start.
    """

    def __init__(
        self, nodes: Sequence[Mapping[str, Any]], edges: Iterable[tuple[str, str]], wanted: Collection[str] = ()
    ) -> None:
        begun = [node for node in nodes if node["began"] is not None]
        # spawnd may have taken over a life from an older version, which did not write down when it was asked for
        known = (node[key] for node in begun for key in ("asked", "began") if node[key] is not None)
        self.zero: float = min(known, default=0.0)
        found = {node["name"]: self._span(node) for node in begun}
        self.spans = sorted(found.values(), key=lambda span: span.started)  # stable: else in order of definition
        pairs = ((found[name], found[other]) for name, other in edges if name in found and other in found)
        self.edges = [(span, other) for span, other in pairs if span.waited_for(other)]
        ends = [span for span in self.spans if span.name in wanted] if wanted else first_start(self.spans)
        _mark(ends, self.edges)

    def _span(self, node: Mapping[str, Any]) -> Span:
        asked, ready = (None if node[key] is None else node[key] - self.zero for key in ("asked", "came_up"))
        return Span(node["name"], node["state"], asked or 0.0, node["began"] - self.zero, ready)


def first_start(spans: Iterable[Span]) -> list[Span]:
    """Services that were asked for before all earlier ones were ready: of most machines the boot."""
    first: list[Span] = []
    end = 0.0
    for span in sorted(spans, key=lambda span: span.asked):
        if span.asked > end:
            break
        first.append(span)
        end = max(end, span.started if span.ready is None else span.ready)
    return first


def _mark(ends: Iterable[Span], edges: Iterable[tuple[Span, Span]]) -> None:
    """Mark the critical spans: of those that a service waited for, the one that was ready last."""
    over: dict[Span, list[Span]] = {}
    for span, other in edges:
        over.setdefault(span, []).append(other)
    last = max((span for span in ends if span.ready is not None), key=_ready, default=None)
    while last is not None and not last.critical:
        last.critical = True
        last = max(over.get(last, ()), key=_ready, default=None)


def _ready(span: Span) -> float:
    assert span.ready is not None
    return span.ready
