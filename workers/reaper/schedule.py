"""Nodes that are looked at when their time has come, on the loop's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supervisor.log.logger import log
from workers.reaper.agenda import Agenda
from workers.reaper.node import Node

SLICE = 0.005  # seconds of work before others have their turn: there are several kinds of it
GATHER = 0.01  # seconds: what is due within them is done together, as a wake-up costs more than what is done in it
FAILED_PAUSE = 10.0  # seconds until what failed is tried again


class Schedule:
    """Calls `due` with each node when its time has come; with one that it raises for later again.

    `done` is called after one or several of them.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, due: Callable[[Node], None], done: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._due = due
        self._done = done
        self._agenda = Agenda()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, node: Node, when: float) -> None:
        """In the place of the time that it had, if any."""
        self._agenda.add(node, when)
        if self._timer is None or self._timer.when() > when + GATHER:
            self._set_timer(when + GATHER)

    def remove(self, node: Node) -> None:
        self._agenda.remove(node)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._run)

    def _run(self) -> None:
        self._timer = None
        end = self._loop.time() + SLICE
        while (now := self._loop.time()) < end and (node := self._agenda.take(now)) is not None:
            self._call(node)
        when = self._agenda.next_time()
        if when is not None:
            self._set_timer(when if when <= now else when + GATHER)
        self._done()

    def _call(self, node: Node) -> None:
        try:
            self._due(node)
        except OSError as error:
            log.warning("cannot see to cgroup %s: %s; trying again", node.path, error.strerror)
        except Exception as error:
            log.error("unexpected error with cgroup %s; trying again", node.path, exc_info=error)
        else:
            return
        self._agenda.add(node, self._loop.time() + FAILED_PAUSE)
