"""How long to wait before a service that failed is started again."""

from __future__ import annotations

from supervisor.definitions.service import Backoff


def delay(backoff: Backoff, failures: int, spread: float) -> float:
    """Seconds to wait after the given number of failures in a row (1 or more).

    `spread` is a random number in -1..1; the wait is moved by that share of `jitter`, so
    that services that failed together do not come back together.
    """
    if failures < 1:
        raise ValueError(f"no wait without a failure: {failures}")
    try:
        wait = min(backoff.first * float(backoff.factor) ** (failures - 1), backoff.max)
    except OverflowError:
        wait = backoff.max
    return float(wait * (1 + backoff.jitter * spread))
