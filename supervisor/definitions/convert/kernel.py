"""Scheduling, CPUs, capabilities, and the limits and weights of a cgroup."""

from __future__ import annotations

import re

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert.plain import integer
from supervisor.definitions.convert.tables import each, items, names
from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.scalars import count, is_unlimited, size
from supervisor.definitions.values import describe, is_integer
from supervisor.linux.capabilities import CAPABILITIES

MAX_CPU = 8191  # NR_CPUS is at most 8192

_RANGE = re.compile(r"\s*([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?\s*", re.A)

PRIORITIES = range(1, 100)  # of the real-time policies
_REAL_TIME_POLICY = re.compile(r"(?:fifo|rr):([0-9]{1,3})", re.A)
PERIOD_US = 100_000  # the kernel's own default
MIN_QUOTA_US = 1_000  # the kernel accepts no less
_PERCENT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*%")


def cpu_affinity(value: object, checking: Checking) -> tuple[int, ...]:
    """Return numbers of CPUs, from a list or text like `"0-3,5"`."""
    if isinstance(value, str):
        cpus = {cpu for part in value.split(",") for cpu in _range(part, value)}
    elif isinstance(value, list):
        cpus = {_cpu(item) for item in value}
    else:
        raise InvalidValue(f'has to be a list of CPUs or text like "0-3,5", not {describe(value)}')
    if not cpus:
        raise InvalidValue("has to name at least one CPU")
    if max(cpus) > MAX_CPU:
        raise InvalidValue(f"{max(cpus)} is not a CPU, they go from 0 to {MAX_CPU}")
    return tuple(sorted(cpus))


def _cpu(value: object) -> int:
    if not is_integer(value) or int(str(value)) < 0:
        raise InvalidValue(f"{describe(value)} is not the number of a CPU")
    return int(str(value))


def _range(part: str, whole: str) -> range:
    match = _RANGE.fullmatch(part)
    if not match:
        raise InvalidValue(f'{describe(whole)} is not a list of CPUs (like "0-3,5")')
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise InvalidValue(f"{describe(part.strip())} ends before it begins")
    return range(first, last + 1)


def scheduling(value: object, checking: Checking) -> str:
    """Return `"batch"`, `"idle"`, or a real-time policy with its priority."""
    if value in ("batch", "idle"):
        return str(value)
    match = _REAL_TIME_POLICY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidValue(f"{describe(value)} is not 'batch', 'idle', or like 'fifo:10' or 'rr:10'")
    if int(match[1]) not in PRIORITIES:
        raise InvalidValue(f"{match[1]} is out of range for a priority, from {PRIORITIES[0]} to {PRIORITIES[-1]}")
    return f"{match[0].partition(':')[0]}:{int(match[1])}"


def capabilities(value: object, checking: Checking) -> tuple[str, ...]:
    """Return the names without `CAP_`, in lower case."""
    given = names(value, '{ keep = { "net_bind_service" } }')
    for name in given:
        if name != "keep":
            checking.problem("unknown, it has keep alone" + did_you_mean(name, ["keep"]), "capabilities", name)
    if "keep" not in given:
        raise InvalidValue('has to say which to keep, like { keep = { "net_bind_service" } }')
    try:
        keep = items(given["keep"], "keep")
    except InvalidValue as error:
        raise InvalidValue(error.message, "keep") from None
    return tuple(sorted(set(each(keep, checking, _capability, "capabilities", "keep"))))


def _capability(value: object, checking: Checking) -> str:
    if not isinstance(value, str):
        raise InvalidValue(f"has to be the name of a capability, not {describe(value)}")
    name = value.lower().removeprefix("cap_")
    if name not in CAPABILITIES:
        raise InvalidValue(f"unknown capability {describe(value)}" + did_you_mean(name, CAPABILITIES))
    return name


def memory(value: object, checking: Checking) -> str:
    return "max" if is_unlimited(value) else str(size(value))


def weight(value: object, checking: Checking) -> str:
    return str(integer(1, 10_000)(value, checking))


def processes(value: object, checking: Checking) -> str:
    return "max" if is_unlimited(value) else str(count(value))


def idle_cpu(value: object, checking: Checking) -> float:
    """Return a share of one CPU: `"0.2%"` is 0.002."""
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise InvalidValue(f'{describe(value)} is not a share of a CPU (like "0.2%" or "1%")')
    return float(match[1]) / 100


def cpu_share(value: object, checking: Checking) -> str:
    """Return a share of one CPU: `"150%"` is one and a half."""
    if is_unlimited(value):
        return f"max {PERIOD_US}"
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise InvalidValue(f'{describe(value)} is not a share of a CPU (like "50%", "150%" or "unlimited")')
    quota = round(float(match[1]) * PERIOD_US / 100)
    if quota < MIN_QUOTA_US:
        raise InvalidValue(f"{describe(value)} is less than the 1% that the kernel can do")
    return f"{quota} {PERIOD_US}"
