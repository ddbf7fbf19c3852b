"""The watchdog of the definition: saying in time that the loop still goes round, sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
from collections.abc import Callable

from supervisor.loop.loop import Loop


def feed_watchdog(loop: Loop, say: Callable[[str], object]) -> None:
    """Say `WATCHDOG=1` twice in each interval, if spawnd wants to hear it."""
    interval = os.environ.pop("WATCHDOG_USEC", "")
    if not interval.isdecimal() or not int(interval) or os.environ.pop("WATCHDOG_PID", "") != str(os.getpid()):
        return
    pause = int(interval) / 2_000_000

    def feed() -> None:
        loop.call_later(pause, feed)
        say("WATCHDOG=1")

    feed()
