"""When services were started and became ready, and which of them the last one had to wait for."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Any


class Span:
    """The last start of one service, in seconds since the first of all: `ready` is None where it is not up yet."""

    def __init__(self, name: str, state: str, started: float, ready: float | None) -> None:
        self.name = name
        self.state = state
        self.started = started
        self.ready = ready
        self.critical = False

    @property
    def took(self) -> float | None:
        return None if self.ready is None else self.ready - self.started


class Times:
    """`spans` in the order of their starts; `zero` is the Unix time that they count from.

    `nodes` are those of the control interface, `edges` pairs: a name, and what it needs or comes after.  The
    critical path leads to the one of `wanted` (of all, where that is empty) that was ready last.
    """

    def __init__(
        self, nodes: Sequence[Mapping[str, Any]], edges: Iterable[tuple[str, str]], wanted: Collection[str] = ()
    ) -> None:
        begun = [node for node in nodes if node["began"] is not None]
        self.zero: float = min((node["began"] for node in begun), default=0.0)
        found = {node["name"]: self._span(node) for node in begun}
        self.spans = sorted(found.values(), key=lambda span: span.started)  # stable: else in order of definition
        _mark(found, edges, wanted)

    def _span(self, node: Mapping[str, Any]) -> Span:
        up = node["came_up"]
        return Span(node["name"], node["state"], node["began"] - self.zero, None if up is None else up - self.zero)


def _mark(spans: Mapping[str, Span], edges: Iterable[tuple[str, str]], wanted: Collection[str]) -> None:
    """Of what each had to wait for, the one that was ready last is critical."""
    over: dict[str, list[Span]] = {}
    for name, other in edges:
        if other in spans and spans[other].ready is not None:
            over.setdefault(name, []).append(spans[other])
    ends = [span for span in spans.values() if span.ready is not None and (not wanted or span.name in wanted)]
    span = max(ends, key=_ready, default=None)
    while span is not None:
        span.critical = True
        started = span.started
        # what became ready later has been started again since
        before = [other for other in over.get(span.name, ()) if _ready(other) <= started and not other.critical]
        span = max(before, key=_ready, default=None)


def _ready(span: Span) -> float:
    assert span.ready is not None
    return span.ready
