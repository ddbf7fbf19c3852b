"""The descriptor table of a child: sources of any number move to 0, 1, 2, 3, …, and all others are closed.

The steps for the last tables are kept by their values, like those of `launch_plan.py`.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from supervisor.launch.operations import Kind, operation
from supervisor.launch.program import Arrival
from supervisor.linux.descriptors import LAST_DESCRIPTOR
from supervisor.process.failure import failed
from supervisor.process.files import Rights
from supervisor.process.launch import Launch, Source

SPARE = -1  # a free number
USUAL = 64  # descriptors: steps for larger tables are not kept


def sources_of(launch: Launch) -> list[Source]:
    """Return the sources of all descriptors, those of the table first."""
    return [*launch.stdio, *[source for _, source in launch.fds], *(launch.ready or ())[1:]]


def make_table(launch: Launch, arrival: Arrival) -> tuple[bytes, ...]:
    """Return the steps that make the table. Raises StepError if two sources have the same target."""
    sources, numbers = sources_of(launch), arrival.numbers
    last = len(sources) - 1
    if launch.ready is not None:
        number = launch.ready[0]
        if number < last:
            raise failed("place the ready pipe", "", errno.EBUSY, f"descriptor {number} is in the table")
        last = number
    arrived = tuple([source if isinstance(source, str) else numbers[source] for source in sources])
    received = tuple([numbers[fd] for fd in arrival.sent])
    make = _arranged if len(sources) <= USUAL else _arranged.__wrapped__
    return make(arrived, last, received, arrival.error, launch.rights)


@lru_cache(64)
def _arranged(
    sources: tuple[Source, ...], last: int, received: tuple[int, ...], error: int, rights: Rights | None
) -> tuple[bytes, ...]:
    """Return the steps for a table; others are closed first, so that a process that hangs does not hold them.

    `sources` are paths, and numbers on which descriptors arrive; the service gets them from 0 up, the last one as
    `last`. `received` are those that come in messages.
    """
    targets = dict(zip((*range(len(sources) - 1), last), sources, strict=True))
    numbers = {error, *(source for source in sources if isinstance(source, int))}
    steps = [_closing(numbers.difference(received))]
    if received:
        steps.append(operation(Kind.RECEIVE, "take over descriptors", numbers=received))
    opened: dict[str, int] = {}  # a source may have several targets; /dev/null has no offset to share
    for source in sources:
        if isinstance(source, str) and source not in opened:
            opened[source] = _free(numbers)
            numbers.add(opened[source])
            steps.append(_opening(source, opened[source], rights))
    found = {target: opened[source] if isinstance(source, str) else source for target, source in targets.items()}
    found[last + 1] = error  # the first number above all targets
    return *steps, operation(Kind.MOVE, "place", numbers=_moves(found, numbers)), _closing(found)


def _opening(path: str, number: int, rights: Rights | None) -> bytes:
    if path == os.devnull:
        return operation(Kind.OPEN, "open", path, [number])
    numbers = [number, *rights_numbers(rights)]
    return operation(Kind.OPEN_FILE, "open", path, numbers, refused=errno.EINVAL, cause="it is not a regular file")


def rights_numbers(rights: Rights | None) -> list[int]:
    """Return the rights of a user in the form of a plan."""
    return [0, 0, 0] if rights is None else [1, rights.uid, rights.gid, *rights.gids]


def _closing(kept: Iterable[int]) -> bytes:
    """Return the step that closes all other numbers."""
    numbers = [number for ends in gaps(kept) for number in ends]
    return operation(Kind.CLOSE, "close the other descriptors", numbers=numbers)


def _moves(sources: Mapping[int, int], used: set[int]) -> list[int]:
    """Return pairs of numbers; a pair of equal numbers stands for a descriptor that is in its place already."""
    spare = _free(used | sources.keys())
    pairs: list[int] = []
    for pair in moves(sources):
        pairs += (spare if number == SPARE else number for number in pair)
    for target, source in sources.items():
        if source == target:
            pairs += (target, target)
    return pairs


def _free(used: set[int]) -> int:
    return next(number for number in range(len(used) + 1) if number not in used)


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
