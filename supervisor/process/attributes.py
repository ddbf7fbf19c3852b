"""The attributes that a child gives itself before it becomes the service: scheduling, limits, user, capabilities.

Limits, setrlimit(2), are set in two phases. A limit on memory or descriptors also binds the process that
prepares the service, and Python needs some of both until exec. So the first phase, as root, does everything
that takes a privilege: it raises hard limits. The second phase, right before exec, sets the limits that bind
this process.

A service that is not root has exactly the capabilities(7) that its definition keeps, whatever spawnd was
started with: an ambient or inheritable set of spawnd would pass to the programs that it executes. All of this
works for a program that is executed next and for a worker that continues in this process. python-prctl is
imported here alone, and only where a service needs it: by `load_prctl`, before the fork.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from importlib import import_module
from types import ModuleType

from supervisor.definitions.service import UNLIMITED, Service
from supervisor.linux.capabilities import cap_ambient_clear_all, cap_ambient_raise
from supervisor.linux.libc import check, function
from supervisor.linux.scheduling import NORMAL, ioprio_set, set_timer_slack
from supervisor.process.failure import failed, step

POLICIES = {"batch": os.SCHED_BATCH, "idle": os.SCHED_IDLE, "fifo": os.SCHED_FIFO, "rr": os.SCHED_RR}
OOM_SCORE_ADJ = "/proc/self/oom_score_adj"  # proc(5)

# every RLIMIT_* of <asm-generic/resource.h>; Python has no name for `locks` (10)
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

CAP_CHECKPOINT_RESTORE = 40  # the last capability of python-prctl, which knows its number but not its name

# <linux/capability.h>
LINUX_CAPABILITY_VERSION_3 = 0x20080522
CAPABILITY_DATA_SIZE = 24  # two each of effective, permitted and inheritable sets, of 32 capabilities

_capset = function("capset", ctypes.c_char_p, ctypes.c_char_p)


def is_spared() -> bool:
    """Whether the kernel spares this process when memory is short, as systemd may have set it up."""
    with open(OOM_SCORE_ADJ, encoding="ascii") as file:
        return int(file.read()) < 0


def set_scheduling(service: Service, spared: bool) -> None:
    """Set niceness, processors, policies, timer slack and oom_score_adj of this process, where `service` has them.

    The oom_score_adj that `spared` its parent is not inherited: a service has to ask for its own. Raises
    StepError.
    """
    if service.nice is not None:
        with step("set nice"):
            os.setpriority(os.PRIO_PROCESS, 0, service.nice)
    if service.cpu_affinity:
        with step("set cpu_affinity"):
            os.sched_setaffinity(0, service.cpu_affinity)
    _set_policy(service.scheduling)
    if service.io_class is not None or service.io_priority is not None:
        with step("set io_class" if service.io_class else "set io_priority"):
            priority = NORMAL if service.io_priority is None else service.io_priority
            ioprio_set(service.io_class or "best-effort", 0 if service.io_class == "idle" else priority)
    if service.timer_slack is not None:
        with step("set timer_slack"):
            set_timer_slack(round(service.timer_slack * 1e9))
    score = service.oom_score_adj if service.oom_score_adj is not None else 0 if spared else None
    if score is not None:
        with step("write", OOM_SCORE_ADJ):
            write_once(OOM_SCORE_ADJ, str(score))


def _set_policy(scheduling: str) -> None:
    """Set the scheduling policy with its priority, as definitions write it: `fifo:10`."""
    if scheduling:
        policy, _, priority = scheduling.partition(":")
        with step("set scheduling"):
            os.sched_setscheduler(0, POLICIES[policy], os.sched_param(int(priority or 0)))


def write_once(path: str, text: str) -> None:
    """Write a file of the kernel in one system call. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def with_descriptors(limits: Limits, nofile_soft: int) -> Limits:
    """Return `limits` with a limit of descriptors: by default the soft one that spawnd was started with."""
    if "nofile" in limits:
        return limits
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return limits | {"nofile": (_lower(nofile_soft, hard), hard)}


def set_limits(limits: Limits) -> None:
    """Set the limits that do not bind this process, and raise all hard limits that have to rise. Raises StepError."""
    for name, wanted in limits.items():
        if (pair := early_limit(name, *wanted)) is not None:
            _set(name, RESOURCES[name], *pair)


def early_limit(name: str, soft: int, hard: int) -> tuple[int, int] | None:
    """Return what to set of a limit at first: of a limit that binds this process a rise of the hard one, or nothing."""
    if name not in BIND_US:
        return soft, hard
    soft_now, hard_now = resource.getrlimit(RESOURCES[name])
    return None if _lower(hard, hard_now) == hard else (soft_now, hard)


def set_binding_limits(limits: Limits) -> None:
    """Set the limits that bind this process, memory last. Raises StepError."""
    for name in BIND_US:
        if name in limits:
            _set(name, RESOURCES[name], *limits[name])


def _set(name: str, number: int, soft: int, hard: int) -> None:
    with step(f"set limit {name}"):
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError as error:  # Python raises it for EINVAL, and for EPERM when a hard limit would rise
            raise _as_os_error(soft, hard) from error


def _as_os_error(soft: int, hard: int) -> OSError:
    if _lower(soft, hard) != soft:
        return OSError(errno.EINVAL, "the soft limit is above the hard one")
    return PermissionError(errno.EPERM, "raising the hard limit takes CAP_SYS_RESOURCE")


def _lower(one: int, other: int) -> int:
    if UNLIMITED in (one, other):
        return other if one == UNLIMITED else one
    return min(one, other)


def load_prctl(service: Service) -> None:
    """Import the modules that `set_privileges` will need, so that no child has to import them anew."""
    if service.capabilities is not None or service.no_new_privs:
        _prctl()


def set_privileges(service: Service, *, is_root: bool) -> None:
    """Become the service's user with its capabilities; users and groups stay if spawnd is not root.

    Raises StepError, which names a capability that spawnd itself lacks.
    """
    keep = None if service.capabilities is None else _numbers(service.capabilities)
    if keep is not None:
        _before_user(keep)
    if is_root:
        _set_user(service)
    if keep is not None:
        _after_user(keep)
    elif os.geteuid() != 0:
        _drop_all()
    if service.no_new_privs:
        with step("set no_new_privs"):
            _prctl().set_no_new_privs(1)


def _set_user(service: Service) -> None:
    with step("set groups"):
        os.setgroups(service.gids)
    with step(f"set gid {service.gid}"):
        os.setresgid(service.gid, service.gid, service.gid)
    with step(f"set uid {service.uid}"):
        os.setresuid(service.uid, service.uid, service.uid)


def _numbers(names: tuple[str, ...]) -> dict[int, str]:
    """Return capabilities by number. Raises StepError for an unknown capability, or one that spawnd lacks."""
    prctl = _prctl()
    keep = {}
    for name in names:
        number = CAP_CHECKPOINT_RESTORE if name == "checkpoint_restore" else getattr(prctl, f"CAP_{name.upper()}", None)
        if number is None:
            raise failed(f"keep capability {name}", "", errno.EINVAL, "there is no such capability")
        keep[number] = name
    permitted = prctl.get_caps((list(keep), prctl.ALL_FLAGS))[prctl.CAP_PERMITTED]
    for number, name in keep.items():
        if not permitted[number]:
            raise failed(f"keep capability {name}", "", errno.EPERM, "the supervisor does not have it itself")
    return keep


def _before_user(keep: dict[int, str]) -> None:
    """Reduce the bounding set, and let the permitted set survive the change of user.

    An unprivileged spawnd cannot reduce the bounding set and need not: only root gains capabilities from it
    at exec.
    """
    prctl = _prctl()
    if prctl.cap_effective.setpcap or os.geteuid() == 0:
        for number in set(prctl.ALL_CAPS) - keep.keys():
            with step("reduce the bounding set"):
                if prctl.capbset_read(number):
                    prctl.capbset_drop(number)
    with step("set keepcaps"):
        prctl.set_keepcaps(True)


def _after_user(keep: dict[int, str]) -> None:
    """Set the permitted, effective and inheritable sets to `keep`, and the ambient set, which survives exec.

    Root needs no ambient set: exec gives it the bounding set.
    """
    prctl = _prctl()
    flags = list(prctl.ALL_FLAGS)
    others = [number for number in prctl.ALL_CAPS if number not in keep]
    with step("set capabilities"):
        prctl.set_caps((list(keep), flags, True), (others, flags, False))
        prctl.set_keepcaps(False)
        cap_ambient_clear_all()
    if os.geteuid() != 0:
        for number, name in keep.items():
            with step(f"raise ambient capability {name}"):
                cap_ambient_raise(number)


def _drop_all() -> None:
    """Empty the permitted, effective and inheritable sets; the kernel empties the ambient set with them.

    capset(2) is called directly, which saves services without capabilities the import of python-prctl.
    """
    with step("drop capabilities"):
        check(_capset(struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0), bytes(CAPABILITY_DATA_SIZE)))


def _prctl() -> ModuleType:
    return import_module("prctl")
