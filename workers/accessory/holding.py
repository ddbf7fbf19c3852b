"""Holding the inits of an earlier process: not all of them before the first answer, but soon."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from workers.accessory.entry import Entry
from workers.accessory.errors import Refused

AT_ONCE = 32  # inits, a millisecond, before others have their turn
PAUSE = 1.0  # seconds until those are tried again for which there was no descriptor


def hold_soon(loop: Loop, hold: Callable[[Entry], None], entries: Iterable[Entry]) -> None:
    """Call `hold` with each of them from the loop, some in a turn, with one that it raises Refused for later again."""
    _go_on(loop, hold, deque(entries))


def _go_on(loop: Loop, hold: Callable[[Entry], None], left: deque[Entry]) -> None:
    if left:
        loop.call_soon(partial(_hold_some, loop, hold, left))


def _hold_some(loop: Loop, hold: Callable[[Entry], None], left: deque[Entry]) -> None:
    some = [left.popleft() for _ in range(min(AT_ONCE, len(left)))]
    _go_on(loop, hold, left)
    failed: list[Entry] = []
    for entry in some:
        try:
            hold(entry)
        except Refused as error:
            if not failed:
                log.error("%s; trying again", error)  # once for all of them: there may be thousands
            failed.append(entry)
    if failed:
        loop.call_later(PAUSE, partial(hold_soon, loop, hold, failed))
