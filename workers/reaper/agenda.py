"""What is to be looked at when: nodes in the order of their times."""

from __future__ import annotations

import heapq
from itertools import count

from workers.reaper.node import Node


class Agenda:
    """Each node has one time at most, `node.due`; another one replaces it."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Node]] = []
        self._order = count()

    def add(self, node: Node, when: float) -> None:
        node.due = when
        heapq.heappush(self._entries, (when, next(self._order), node))

    def remove(self, node: Node) -> None:
        node.due = None  # its entry means nothing then

    def take(self, now: float) -> Node | None:
        """The first node that is due, which is on the agenda no more; None: none is."""
        self._skip()
        if not self._entries or self._entries[0][0] > now:
            return None
        node = heapq.heappop(self._entries)[2]
        node.due = None
        return node

    def next_time(self) -> float | None:
        self._skip()
        return self._entries[0][0] if self._entries else None

    def _skip(self) -> None:
        """Leave out the entries of nodes that have another time by now, or none."""
        while self._entries and self._entries[0][2].due != self._entries[0][0]:
            heapq.heappop(self._entries)
