"""Empty cgroups for which there is no descriptor now, in the order in which they came.

There may be tens of thousands of them for as long as a script's database is away.  So nothing is
done with each of them while they wait: a few look again when there is room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice

from workers.reaper.node import Node

PAUSE = 0.05  # seconds between two looks for room
AT_ONCE = 256  # nodes


class Crowd:
    """`room` says for how many there are descriptors; `enter` is called with a node that may have one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, room: Callable[[], int], enter: Callable[[Node], None]
    ) -> None:
        self._loop = loop
        self._room = room
        self._enter = enter
        self._nodes: dict[Node, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def add(self, node: Node) -> None:
        self._nodes[node] = None
        if self._timer is None:
            self._timer = self._loop.call_later(PAUSE, self._let_in)

    def remove(self, node: Node) -> None:
        """It has gone or is in use again."""
        self._nodes.pop(node, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _let_in(self) -> None:
        self._timer = None
        for node in list(islice(self._nodes, max(0, min(self._room(), AT_ONCE)))):
            del self._nodes[node]
            self._enter(node)
        if self._nodes and self._timer is None:
            self._timer = self._loop.call_later(PAUSE, self._let_in)
