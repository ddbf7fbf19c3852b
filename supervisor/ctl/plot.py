"""A picture of a start: a bar for each service from its start until it was ready, as SVG 1.1.

An arrow leads from the end of each service to the start of what waited for it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from supervisor.ctl.graph import Span

ROW = 18  # all in pixels
BAR = 12
MARGIN = 24
TOP = 56
WIDE = 900  # what the time of the whole start takes
LETTER = 7.5  # of the names, about
LEAST = 2  # that the shortest start is seen at all
STEPS = (1, 2, 5)
TICKS = 12  # lines of the scale, at most
COLOURS = {"bar": "#7aa6c2", "critical": "#c0504d", "unready": "#c9c9c9", "failed": "#3f3f3f"}
ARROW = "#9a9a9a"


def plot(spans: Sequence[Span], title: str, edges: Iterable[tuple[Span, Span]] = ()) -> Iterator[str]:
    """The lines of the file; an edge is a span with one that it waited for."""
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
    """1, 2 or 5 times a power of ten: the shortest that makes no more than TICKS lines."""
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
    """The heads of the arrows, one for each colour: a line does not hand its own on."""
    for name, colour in (("arrow", ARROW), ("critical", COLOURS["critical"])):
        yield f'<marker id="{name}" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        yield f'<path d="M0,0 L6,3 L0,6 z" fill="{colour}"/></marker>'


def _arrow(other: Span, from_y: int, span: Span, to_y: int, end: float) -> str:
    """From the end of one bar to the beginning of another, down or up and then to the right."""
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
    """Return the text as XML takes it: without markup and unknown characters."""
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(letter, entity)
    return "".join(letter if letter.isprintable() else "�" for letter in text)
