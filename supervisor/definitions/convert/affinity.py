"""The CPUs that a service may run on."""

from __future__ import annotations

import re

from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.values import describe, is_integer

MAX_CPU = 8191  # NR_CPUS is at most 8192

_RANGE = re.compile(r"\s*([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?\s*", re.A)


def cpu_affinity(value: object, scope: Scope) -> tuple[int, ...]:
    """Numbers of CPUs, from a list or text like `"0-3,5"`."""
    if isinstance(value, str):
        cpus = {cpu for part in value.split(",") for cpu in _range(part, value)}
    elif isinstance(value, list):
        cpus = {_cpu(item) for item in value}
    else:
        raise Bad(f'has to be a list of CPUs or text like "0-3,5", not {describe(value)}')
    if not cpus:
        raise Bad("has to name at least one CPU")
    if max(cpus) > MAX_CPU:
        raise Bad(f"{max(cpus)} is not a CPU, they go from 0 to {MAX_CPU}")
    return tuple(sorted(cpus))


def _cpu(value: object) -> int:
    if not is_integer(value) or int(str(value)) < 0:
        raise Bad(f"{describe(value)} is not the number of a CPU")
    return int(str(value))


def _range(part: str, whole: str) -> range:
    match = _RANGE.fullmatch(part)
    if not match:
        raise Bad(f'{whole!r} is not a list of CPUs (like "0-3,5")')
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise Bad(f"{part.strip()!r} ends before it begins")
    return range(first, last + 1)
