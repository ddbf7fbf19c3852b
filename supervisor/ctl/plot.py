"""A picture of a start: a bar for each service from its start until it was ready, as SVG 1.1."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from supervisor.ctl.times import Span

ROW = 18  # all in pixels
BAR = 12
MARGIN = 24
TOP = 56
WIDE = 900  # what the time of the whole start takes
LETTER = 7.5  # of the names, about
LEAST = 2  # that the shortest start is seen at all
STEPS = (1, 2, 5)
TICKS = 12  # lines of the scale, at most
COLOURS = {"bar": "#7aa6c2", "critical": "#c0504d", "unready": "#c9c9c9"}


def plot(spans: Sequence[Span], title: str) -> Iterator[str]:
    """The lines of the file."""
    end = max([span.ready if span.ready is not None else span.started for span in spans], default=0.0) or 1e-3
    longest = max((len(span.name) for span in spans), default=0)
    width = int(2 * MARGIN + WIDE + (longest + 10) * LETTER)
    height = TOP + ROW * len(spans) + MARGIN
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    yield '<style>text { font: 12px sans-serif } .critical { font-weight: bold }</style>'
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    yield f'<text x="{MARGIN}" y="20">{escape(title)}</text>'
    yield from _scale(end, height)
    for row, span in enumerate(spans):
        yield from _bar(span, TOP + row * ROW, end)
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
    kind = "unready" if span.ready is None else "critical" if span.critical else "bar"
    took = "not ready" if span.took is None else f"{span.took:.3f} s"
    mark = ' class="critical"' if span.critical else ""
    yield f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{BAR}" fill="{COLOURS[kind]}"/>'
    yield f'<text{mark} x="{x + wide + 4:.1f}" y="{y + BAR - 2}">{escape(span.name)} ({took})</text>'


def _x(seconds: float, end: float) -> float:
    return MARGIN + WIDE * seconds / end


def escape(text: str) -> str:
    """What XML takes as text: nothing that is a mark, or that it does not know."""
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(letter, entity)
    return "".join(letter if letter.isprintable() else "�" for letter in text)
