"""The descriptor table of a child: sources of any number move to 0, 1, 2, 3, …, and all others are closed."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from supervisor.definitions.service import FIRST
from supervisor.linux.descriptors import LAST_DESCRIPTOR
from supervisor.process.failure import failed
from supervisor.process.launch import Launch, Source

SPARE = -1  # a free number


@dataclass(frozen=True, slots=True)
class Plan:
    """Sources with their target numbers; `error_target` is the first number above all targets."""

    targets: tuple[tuple[int, Source], ...]
    error_target: int


def plan(launch: Launch) -> Plan:
    """Return the plan for the table of `launch`. Raises StepError if two sources have the same target."""
    targets = [*enumerate(launch.stdio), *enumerate((source for _, source in launch.fds), FIRST)]
    highest = len(targets) - 1
    if launch.ready is not None:
        number, source = launch.ready
        if number <= highest:
            raise failed("place the ready pipe", "", errno.EBUSY, f"descriptor {number} is in the table")
        targets.append((number, source))
        highest = number
    return Plan(tuple(targets), highest + 1)


def gaps(kept: Iterable[int]) -> list[tuple[int, int]]:
    """Return the ranges of all numbers but those in `kept`, for close_range."""
    ranges = []
    behind = 0
    for number in sorted(kept):
        if number > behind:
            ranges.append((behind, number - 1))
        behind = number + 1
    return [*ranges, (behind, LAST_DESCRIPTOR)]


def moves(sources: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the copies (from, to) after which each number in `sources` has what was at its source before.

    They take one spare number besides those in `sources`. With twice as many numbers, a service could be
    given only half as many descriptors as its limit. Descriptors that are in place already are left out.
    """
    pending = {target: source for target, source in sources.items() if target != source}
    readers = Counter(pending.values())
    free = [target for target in pending if target not in readers]
    while pending:
        if not free:  # only cycles are left
            target = next(iter(pending))
            yield target, SPARE
            reader = target
            while pending[reader] != target:
                reader = pending[reader]
            pending[reader] = SPARE
            free.append(target)
        while free:
            target = free.pop()
            source = pending.pop(target)
            yield source, target
            readers[source] -= 1
            if source in pending and not readers[source]:
                free.append(source)
