"""A dependency graph: as a tree, as levels in the order of the start, for Graphviz, with its times, as a picture."""

from __future__ import annotations

from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Any

INDENT = "  "
WHOLE = 1000  # lines up to which a tree repeats everything; a longer one shows the children of a service once
DEEPEST = 40  # levels of indentation; deeper lines begin with their level
SHOWN = " ..."  # after a name whose children are further up

# of the picture, all in pixels
ROW = 18
BAR = 12
MARGIN = 24
TOP = 56
WIDE = 900  # the time of the whole start
LETTER = 7.5  # width of a letter, about
LEAST = 2  # minimal width, so that the shortest start is visible
STEPS = (1, 2, 5)
TICKS = 12  # maximal number of lines of the scale
COLOURS = {"bar": "#7aa6c2", "critical": "#c0504d", "unready": "#c9c9c9", "failed": "#3f3f3f"}
ARROW = "#9a9a9a"


class Tree:
    """An acyclic graph; `names` are in order of definition, `edges` are pairs of a child and its parent."""

    def __init__(self, names: Iterable[str], edges: Iterable[tuple[str, str]]) -> None:
        self.over: dict[str, list[str]] = {name: [] for name in names}  # the parents of each name
        self.under: dict[str, list[str]] = {name: [] for name in self.over}
        for name, other in edges:
            self.over[name].append(other)
        for name, others in self.over.items():  # so that siblings are in order of definition
            for other in others:
                self.under[other].append(name)

    def roots(self) -> list[str]:
        return [name for name, others in self.over.items() if not others]

    def levels(self) -> list[list[str]]:
        """Return the names by level, in order of definition; a name is one level below its lowest parent."""
        level: dict[str, int] = dict.fromkeys(self.over, 0)
        for name in self._sorted():
            for other in self.under[name]:
                level[other] = max(level[other], level[name] + 1)
        found: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
        for name, number in level.items():
            found[number].append(name)
        return found

    def lines(self, show: Callable[[str], str]) -> Iterator[str]:
        """Yield the lines of the tree, each name below each of its parents; a long tree repeats no children."""
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
        """Return the names, each after all of its parents."""
        left = {name: len(others) for name, others in self.over.items()}
        order = self.roots()
        for name in order:  # the list grows during the iteration
            for other in self.under[name]:
                left[other] -= 1
                if not left[other]:
                    order.append(other)
        return order

    def _size(self) -> int:
        """Return the number of lines of the tree with all repetitions."""
        size: dict[str, int] = {}
        for name in reversed(self._sorted()):
            size[name] = 1 + sum(size[other] for other in self.under[name])
        return sum(size[name] for name in self.roots())


def dot(names: Iterable[str], edges: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """Yield a Graphviz graph: an arrow from a dependency to its dependant, dashed for order alone."""
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
    """Return a name quoted for Graphviz, where only a quote ends it."""
    return '"' + printable(name).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _indent(depth: int) -> str:
    return INDENT * depth if depth <= DEEPEST else f"{INDENT * DEEPEST}({depth}) "


# times


class Span:
    """The last start of a service from rest, in seconds since the first start; `ready` is None if it never was ready.

    Later restarts do not count, because no other service waited for them.
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
        """Whether the service has failed, even if it was ready for a moment: dependants wait for its next start."""
        return self.state in ("failed", "backoff")

    @property
    def took(self) -> float | None:
        return None if self.ready is None else self.ready - self.started

    def waited_for(self, other: Span) -> bool:
        """Whether the other service became ready while this one, already requested, had not begun."""
        return other.ready is not None and self.asked < other.ready <= self.started


class Times:
    """Start times of services: `spans` in order of their starts; `zero` is their origin as a Unix time.

    `edges` are pairs of a span and a span for which it waited. `nodes` come from the control interface. The
    `edges` argument has pairs of a name and a name that it needs or comes after. The critical path leads to
    the service of `wanted` that was ready last; if `wanted` is empty, to the last one of the first start.
    """

    def __init__(
        self, nodes: Sequence[Mapping[str, Any]], edges: Iterable[tuple[str, str]], wanted: Collection[str] = ()
    ) -> None:
        begun = [node for node in nodes if node["began"] is not None]
        # an older spawnd, whose service this one took over, did not record the time of the request
        known = (node[key] for node in begun for key in ("asked", "began") if node[key] is not None)
        self.zero: float = min(known, default=0.0)
        found = {node["name"]: self._span(node) for node in begun}
        # a stable sort: equal starts stay in order of definition
        self.spans = sorted(found.values(), key=lambda span: span.started)
        pairs = ((found[name], found[other]) for name, other in edges if name in found and other in found)
        self.edges = [(span, other) for span, other in pairs if span.waited_for(other)]
        ends = [span for span in self.spans if span.name in wanted] if wanted else first_start(self.spans)
        _mark(ends, self.edges)

    def _span(self, node: Mapping[str, Any]) -> Span:
        asked, ready = (None if node[key] is None else node[key] - self.zero for key in ("asked", "came_up"))
        return Span(node["name"], node["state"], asked or 0.0, node["began"] - self.zero, ready)


def first_start(spans: Iterable[Span]) -> list[Span]:
    """Return the services requested before all earlier ones were ready; on most machines, those of the boot."""
    first: list[Span] = []
    end = 0.0
    for span in sorted(spans, key=lambda span: span.asked):
        if span.asked > end:
            break
        first.append(span)
        end = max(end, span.started if span.ready is None else span.ready)
    return first


def _mark(ends: Iterable[Span], edges: Iterable[tuple[Span, Span]]) -> None:
    """Mark the critical spans: from the end, always the latest of those for which a service waited."""
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


def plot(spans: Sequence[Span], title: str, edges: Iterable[tuple[Span, Span]] = ()) -> Iterator[str]:
    """Yield the lines of the file; an edge is a span and a span for which it waited."""
    end = max([span.ready if span.ready is not None else span.started for span in spans], default=0.0) or 1e-3
    longest = max((len(span.name) for span in spans), default=0)
    width = int(2 * MARGIN + WIDE + (longest + 10) * LETTER)
    height = TOP + ROW * len(spans) + MARGIN
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    yield '<style>text { font: 12px sans-serif } .critical { font-weight: bold }</style>'
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    yield f'<text x="{MARGIN}" y="20">{escape(title)}</text>'
    yield from _heads()
    yield from _scale(end, height)
    rows = {span.name: TOP + row * ROW for row, span in enumerate(spans)}
    for span, other in edges:
        yield _arrow(other, rows[other.name], span, rows[span.name], end)
    for span in spans:
        yield from _bar(span, rows[span.name], end)
    yield "</svg>"


def _scale(end: float, height: int) -> Iterator[str]:
    step = _step(end)
    count = int(end / step + 1e-9)
    for number in range(count + 1):
        x = _x(number * step, end)
        yield f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - MARGIN}" stroke="#e0e0e0"/>'
        yield f'<text x="{x:.1f}" y="{TOP - 12}" text-anchor="middle" fill="#606060">{number * step:g} s</text>'


def _step(end: float) -> float:
    """Return the smallest step of 1, 2 or 5 times a power of ten that needs at most TICKS lines."""
    power = 1e-6
    while True:
        for step in STEPS:
            if end / (step * power) <= TICKS:
                return step * power
        power *= 10


def _bar(span: Span, y: int, end: float) -> Iterator[str]:
    x = _x(span.started, end)
    ready = end if span.ready is None else span.ready
    wide = max(_x(ready, end) - x, LEAST)
    kind = _kind(span)
    took = "not ready" if span.took is None else f"{span.took:.3f} s"
    took = "failed" if span.has_failed else took
    mark = ' class="critical"' if span.critical else ""
    yield f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{BAR}" fill="{COLOURS[kind]}"/>'
    yield f'<text{mark} x="{x + wide + 4:.1f}" y="{y + BAR - 2}">{escape(span.name)} ({took})</text>'


def _kind(span: Span) -> str:
    if span.has_failed:
        return "failed"
    return "unready" if span.ready is None else "critical" if span.critical else "bar"


def _heads() -> Iterator[str]:
    """Yield the heads of the arrows, one for each colour, because a head does not inherit its line's colour."""
    for name, colour in (("arrow", ARROW), ("critical", COLOURS["critical"])):
        yield f'<marker id="{name}" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        yield f'<path d="M0,0 L6,3 L0,6 z" fill="{colour}"/></marker>'


def _arrow(other: Span, from_y: int, span: Span, to_y: int, end: float) -> str:
    """Return an arrow from the end of a bar to the beginning of another: vertical, then to the right."""
    assert other.ready is not None
    from_x = _x(other.ready, end)
    to_x = _x(span.started, end)
    critical = span.critical and other.critical
    head, colour = ("critical", COLOURS["critical"]) if critical else ("arrow", ARROW)
    middle = BAR / 2
    way = f"M{from_x:.1f},{from_y + middle:.1f} L{from_x:.1f},{to_y + middle:.1f} L{to_x:.1f},{to_y + middle:.1f}"
    return f'<path d="{way}" fill="none" stroke="{colour}" marker-end="url(#{head})"/>'


def _x(seconds: float, end: float) -> float:
    return MARGIN + WIDE * seconds / end


def escape(text: str) -> str:
    """Return the text escaped for XML, with unprintable characters replaced."""
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(letter, entity)
    return "".join(letter if letter.isprintable() else "�" for letter in text)
