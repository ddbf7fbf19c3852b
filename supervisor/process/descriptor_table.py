"""The descriptor table of a child: from numbers anywhere to 0, 1, 2, 3, … and nothing else."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from dataclasses import dataclass

from supervisor.errors import StepError
from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.process.failure import ErrorPipe
from supervisor.process.launch import Launch, Source
from supervisor.process.step import failed, step

FIRST = 3  # of the table proper, as systemd's SD_LISTEN_FDS_START


@dataclass(frozen=True, slots=True)
class Plan:
    """Which source goes to which number; `error_target` is the first number above them all."""

    targets: tuple[tuple[int, Source], ...]
    error_target: int


def plan(launch: Launch) -> Plan:
    """The table that `launch` asks for.  Raises StepError where two want the same number."""
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
    """The ranges between and above the numbers in `kept` (ascending), for close_range."""
    ranges = [(low + 1, high - 1) for low, high in itertools.pairwise(kept) if low + 1 < high]
    ranges.append((kept[-1] + 1, LAST_DESCRIPTOR))
    return ranges


def close_others(launch: Launch) -> None:
    """Close what is spawnd's or another service's: wherever this child may get stuck, it is not to hold that open.

    A spawnd that is lost leaves its lock and its sockets to nobody.  Raises StepError.
    """
    sources = [*launch.stdio, *(source for _, source in launch.fds), *(launch.ready or ())[1:]]
    kept = {0, 1, 2, launch.error_fd, *(source for source in sources if isinstance(source, int))}
    with step("close the other descriptors"):
        for first, last in gaps(sorted(kept)):
            close_range(first, last)


def arrange(plan: Plan, pipe: ErrorPipe) -> None:
    """Make the table of `plan`, inherited over exec, and close all else but `pipe`, which moves to `error_target`.

    A source may have a number that another one must get.  Hence all that are in the way go
    above the table first; then each is put in its place.  Raises StepError.
    """
    above = plan.error_target + 1
    with step("move the error pipe"):
        pipe.fd = _lift(pipe.fd, above)
    lifted: dict[Source, int] = {}  # a source may have several targets; /dev/null has no offset that they would share
    for target, source in plan.targets:
        if source not in lifted:
            lifted[source] = _lift_source(target, source, above)
    for target, source in plan.targets:
        try:
            os.dup2(lifted[source], target)
        except OSError as error:
            raise _not_placed(target, error) from error
    with step("move the error pipe"):
        pipe.fd = os.dup2(pipe.fd, plan.error_target, inheritable=False)
    for first, last in gaps([*sorted(target for target, _ in plan.targets), plan.error_target]):
        with step("close the other descriptors"):
            close_range(first, last)


def _lift_source(target: int, source: Source, above: int) -> int:
    if isinstance(source, int):
        try:
            return _lift(source, above)
        except OSError as error:
            raise _not_placed(target, error) from error
    with step("open", source):
        return _lift(os.open(source, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY), above)


def _lift(fd: int, above: int) -> int:
    if fd >= above:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # fcntl(2): what `above` is where the limit leaves no room
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error


def _not_placed(target: int, error: OSError) -> StepError:
    """Named only where it fails: a service may have stored thousands of descriptors."""
    return failed(f"place {_name(target)}", "", error.errno or 0, error.strerror or "")


def _name(target: int) -> str:
    return ("stdin", "stdout", "stderr")[target] if target < FIRST else f"descriptor {target}"
