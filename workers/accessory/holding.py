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
    """Call `hold` with each of them from the loop, some in a turn; where it raises Refused, later again."""
    _go_on(loop, hold, deque(entries), [])


def _go_on(loop: Loop, hold: Callable[[Entry], None], left: deque[Entry], failed: list[Entry]) -> None:
    if left:
        loop.call_soon(partial(_hold_some, loop, hold, left, failed))
    elif failed:
        loop.call_later(PAUSE, partial(hold_soon, loop, hold, failed))


def _hold_some(loop: Loop, hold: Callable[[Entry], None], left: deque[Entry], failed: list[Entry]) -> None:
    try:
        for _ in range(min(AT_ONCE, len(left))):
            entry = left.popleft()
            try:
                hold(entry)
            except Refused as error:
                if not failed:
                    log.error("%s; trying again", error)  # once for all of them: there may be thousands
                failed.append(entry)
    finally:
        _go_on(loop, hold, left, failed)
