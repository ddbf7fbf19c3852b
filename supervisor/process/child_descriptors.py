"""The descriptor table of a child: sources of any number move to 0, 1, 2, 3, …, and all others are closed."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import resource
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from supervisor.definitions.service import FIRST, slot_name
from supervisor.errors import StepError
from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.process.failure import ErrorPipe, failed, step
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


def gaps(kept: list[int]) -> list[tuple[int, int]]:
    """Return the ranges between and above the numbers in `kept` (ascending), for close_range."""
    ranges = [(low + 1, high - 1) for low, high in itertools.pairwise(kept) if low + 1 < high]
    ranges.append((kept[-1] + 1, LAST_DESCRIPTOR))
    return ranges


def close_others(launch: Launch) -> None:
    """Close descriptors of spawnd and of other services, so that a child that hangs keeps none of them open.

    The lock and the sockets of a lost spawnd are then free. Raises StepError.
    """
    sources = [*launch.stdio, *(source for _, source in launch.fds), *(launch.ready or ())[1:]]
    kept = {0, 1, 2, launch.error_fd, *(source for source in sources if isinstance(source, int))}
    with step("close the other descriptors"):
        for first, last in gaps(sorted(kept)):
            close_range(first, last)


def arrange(plan: Plan, pipe: ErrorPipe) -> None:
    """Make the table of `plan`, inherited over exec, and close all else but `pipe`, which moves to `error_target`.

    Raises StepError.
    """
    opened: dict[str, int] = {}  # a source may have several targets; /dev/null has no offset that they could share
    sources = {target: _number(source, opened) for target, source in plan.targets}
    sources[plan.error_target] = pipe.fd
    spare = SPARE
    for source, target in moves(sources):
        fd = spare if source == SPARE else source
        try:
            if target == SPARE:
                copy = spare = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
            else:
                copy = os.dup2(fd, target)
        except OSError as error:
            raise _not_placed(source if target == SPARE else target, error) from error
        if fd == pipe.fd:
            pipe.fd = copy
        if source == SPARE:
            os.close(spare)
    with step("make the table inherited"):
        for target, source in sources.items():
            if source == target:
                os.set_inheritable(target, True)
        os.set_inheritable(pipe.fd, False)
    for first, last in gaps(sorted(sources)):
        with step("close the other descriptors"):
            close_range(first, last)


def _number(source: Source, opened: dict[str, int]) -> int:
    if isinstance(source, int):
        return source
    if source not in opened:
        with step("open", source):
            opened[source] = os.open(source, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    return opened[source]


def _not_placed(target: int, error: OSError) -> StepError:
    """Return the error for a failed copy; names are made only here, as there may be thousands of descriptors."""
    number = error.errno or 0
    if number == errno.EBADF and target >= resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        number = errno.EMFILE  # dup2(2) returns EBADF for a number above the limit
    return failed(f"place {_name(target)}", "", number)


def _name(target: int) -> str:
    return slot_name(target) if target < FIRST else f"descriptor {target}"


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
