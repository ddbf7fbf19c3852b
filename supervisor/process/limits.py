"""Resource limits of a service, setrlimit(2), in two phases.

A limit on memory or descriptors binds the process that prepares the service as well: Python
needs some of both until exec.  So the limits are set as root in their place as far as that takes
a privilege (raising the hard one), and those that would bind us come to hold right before exec.
"""

from __future__ import annotations

import errno
import resource

from supervisor.definitions.service import UNLIMITED
from supervisor.process.step import step

# every RLIMIT_* of <asm-generic/resource.h>; `locks` (10) is the one that Python has no name for
RESOURCES = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "locks": 10,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nice": resource.RLIMIT_NICE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rss": resource.RLIMIT_RSS,
    "rtprio": resource.RLIMIT_RTPRIO,
    "rttime": resource.RLIMIT_RTTIME,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}
BIND_US = ("nofile", "stack", "data", "as")  # in the order of setting: the last two may leave no memory

Limits = dict[str, tuple[int, int]]  # soft and hard


def with_descriptors(limits: Limits, nofile_soft: int) -> Limits:
    """`limits` with the soft limit of descriptors that spawnd was started with, where they say nothing of it."""
    if "nofile" in limits:
        return limits
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return limits | {"nofile": (_lower(nofile_soft, hard), hard)}


def set_limits(limits: Limits) -> None:
    """Set what does not bind us, and raise every hard limit that has to rise.  Raises StepError."""
    for name, (soft, hard) in limits.items():
        number = RESOURCES[name]
        if name in BIND_US:
            soft_now, hard_now = resource.getrlimit(number)
            if _lower(hard, hard_now) == hard:
                continue
            soft = soft_now
        _set(name, number, soft, hard)


def set_binding_limits(limits: Limits) -> None:
    """Set those that bind us, memory last.  Raises StepError."""
    for name in BIND_US:
        if name in limits:
            _set(name, RESOURCES[name], *limits[name])


def _set(name: str, number: int, soft: int, hard: int) -> None:
    with step(f"set limit {name}"):
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError as error:  # Python's word for EINVAL, and for EPERM when a hard limit would rise
            raise _as_os_error(soft, hard) from error


def _as_os_error(soft: int, hard: int) -> OSError:
    if _lower(soft, hard) != soft:
        return OSError(errno.EINVAL, "the soft limit is above the hard one")
    return PermissionError(errno.EPERM, "raising the hard limit takes CAP_SYS_RESOURCE")


def _lower(one: int, other: int) -> int:
    if UNLIMITED in (one, other):
        return other if one == UNLIMITED else one
    return min(one, other)
