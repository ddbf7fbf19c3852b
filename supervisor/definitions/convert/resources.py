"""Limits and weights of a service's cgroup, as the text that the kernel's files take."""

from __future__ import annotations

import re

from supervisor.definitions.convert.number import integer
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.units import count, is_unlimited, size
from supervisor.definitions.values import describe

PERIOD_US = 100_000  # the kernel's own default
MIN_QUOTA_US = 1_000  # the kernel takes no less

_PERCENT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*%")


def memory(value: object, scope: Scope) -> str:
    return "max" if is_unlimited(value) else str(size(value))


def weight(value: object, scope: Scope) -> str:
    return str(integer(1, 10_000)(value, scope))


def processes(value: object, scope: Scope) -> str:
    return "max" if is_unlimited(value) else str(count(value))


def cpu(value: object, scope: Scope) -> str:
    """A share of one CPU: `"150%"` is one and a half."""
    if is_unlimited(value):
        return f"max {PERIOD_US}"
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise Bad(f'{describe(value)} is not a share of a CPU (like "50%", "150%" or "unlimited")')
    quota = round(float(match[1]) * PERIOD_US / 100)
    if quota < MIN_QUOTA_US:
        raise Bad(f"{describe(value)} is less than the 1% that the kernel can do")
    return f"{quota} {PERIOD_US}"
