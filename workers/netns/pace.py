"""How soon something is put right: at once, but not for ever in a loop with somebody who takes it away again."""

from __future__ import annotations

SETTLE = 0.02  # seconds: what is taken away together is put right together
EVERY = 0.25  # seconds from one look to the next: somebody may change things all the time
BURST = 10  # repairs in a row that are made at once
FIRST = 0.5  # seconds that the next one waits
LONGEST = 30.0
CALM = 60.0  # seconds without a repair after which the next one is the first again


class Pace:
    def __init__(self) -> None:
        self._begun = float("-inf")
        self._in_a_row = 0
        self._last = float("-inf")

    def begins(self, now: float) -> None:
        """Somebody looks now."""
        self._begun = now

    def repaired(self, now: float) -> None:
        """A repair has ended, well or not."""
        self._in_a_row = 1 if now - self._last > CALM else self._in_a_row + 1
        self._last = now

    def due(self, now: float) -> float:
        """When the next look may be, and with it a repair."""
        soon = max(now + SETTLE, self._begun + EVERY)
        excess = self._in_a_row - BURST
        if now - self._last > CALM or excess < 0:
            return soon
        return max(soon, self._last + min(LONGEST, FIRST * (1 << min(excess, 10))))
