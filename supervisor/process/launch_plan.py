"""The plan of a launch: the steps of a service's process in a fixed order.

The order is a rule, which `plan.h` checks. Steps that need root or a path of the host come before chroot and
the change of user. The change of user comes before the kept capabilities and the working directory. Limits
are set in two phases; limits that would bind the process itself come at the end. Then the process waits for
spawnd; no_new_privs is last.

The plan is computed from values only. Data that only the kernel knows, such as the pid, are left to `launch`.
Steps that many services have in common are made once: the last ones are kept by their values. Environments and
arguments are not, as they may be secret.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from supervisor.definitions.service import UNLIMITED, Service, slot_name
from supervisor.launch.operations import Kind, operation, plan
from supervisor.launch.program import Arrival
from supervisor.linux.capabilities import CAPABILITIES, SETPCAP, has_effective, permitted
from supervisor.linux.mount import MS_BIND, MS_REC, MS_SLAVE
from supervisor.linux.namespaces import CLONE_NEWNET
from supervisor.linux.scheduling import CLASSES, IOPRIO_CLASS_SHIFT, NORMAL, OOM_SCORE_ADJ
from supervisor.linux.signal_mask import OF_PROCESSES
from supervisor.process.child_descriptors import make_table
from supervisor.process.failure import failed
from supervisor.process.files import Rights
from supervisor.process.launch import Launch
from supervisor.process.marks import SERVICE_MARK, START_MARK
from supervisor.process.network_namespace import FILES, FOLDER, RESOLVER
from supervisor.process.paths import LOOK

Operations = Iterator[bytes]
Made = tuple[bytes, ...]

_kept = lru_cache(64)  # results of each function, some hundred bytes each
Limits = dict[str, tuple[int, int]]  # soft and hard

POLICIES = {"batch": os.SCHED_BATCH, "idle": os.SCHED_IDLE, "fifo": os.SCHED_FIFO, "rr": os.SCHED_RR}
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


def descriptors(launch: Launch) -> set[int]:
    """Return the descriptors of spawnd that the service gets."""
    sources = [*launch.stdio, *[source for _name, source in launch.fds], *(launch.ready or ())[1:]]
    return {source for source in sources if isinstance(source, int)}


def make_plan(launch: Launch, arrival: Arrival, hears: bool = True) -> bytes:
    """Return the plan. Without `hears`, signals stay blocked in the service.

    Raises StepError for an impossible table, or an unavailable capability.
    """
    service = launch.service
    limits = with_descriptors(service.limits, launch.nofile_soft)
    operations = [
        *_begin(launch, hears),
        *make_table(launch, arrival),
        *_files(launch),
        *_attributes(launch),
        *_environment(launch),
        *_namespaces(service),
        *_place_and_user(launch),
        *_end(launch, limits),
    ]
    return plan(operations)


def _begin(launch: Launch, hears: bool) -> Made:
    # Another user could not write its own oom_score_adj then, and has nothing to hide. A forked worker stays as it is.
    is_hidden = launch.is_root and not launch.worker
    # an exec resets signals that are not ignored
    return _begun(is_hidden, hears, OF_PROCESSES if launch.worker else launch.ignored)


@_kept
def _begun(is_hidden: bool, hears: bool, reset: int) -> Made:
    hidden = (operation(Kind.UNDUMPABLE, "become undumpable"),) if is_hidden else ()
    session = operation(Kind.SESSION, "start a session")
    return *hidden, session, operation(Kind.SIGNALS, "reset signals", numbers=[hears, reset])


def _files(launch: Launch) -> Operations:
    """Yield the steps that compare paths with the files of the table, and truncate or rewind files."""
    for mark in launch.marks:
        device = os.major(mark.device), os.minor(mark.device)
        numbers = [mark.slot, *device, mark.inode, mark.is_socket]
        yield operation(Kind.LOOK, LOOK, mark.path, numbers, [os.path.dirname(mark.path)])
    if launch.marks:
        yield operation(Kind.LOOKED, LOOK)
    for slot in launch.emptied:
        yield operation(Kind.TRUNCATE, f"truncate the file of {slot_name(slot)}", numbers=[slot])
    for slot in launch.rewound:
        yield operation(Kind.REWIND, numbers=[slot])


def _attributes(launch: Launch) -> Operations:
    service = launch.service
    if launch.cgroup:
        yield operation(Kind.WRITE, "enter cgroup", f"{launch.cgroup}/cgroup.procs", strings=["0"])
    if service.nice is not None:
        yield operation(Kind.NICE, "set nice", numbers=[service.nice])
    if service.cpu_affinity:
        yield operation(Kind.AFFINITY, "set cpu_affinity", numbers=service.cpu_affinity)
    if service.scheduling:
        policy, _, priority = service.scheduling.partition(":")
        yield operation(Kind.SCHEDULING, "set scheduling", numbers=[POLICIES[policy], int(priority or 0)])
    if service.io_class is not None or service.io_priority is not None:
        level = 0 if service.io_class == "idle" else NORMAL if service.io_priority is None else service.io_priority
        value = CLASSES[service.io_class or "best-effort"] << IOPRIO_CLASS_SHIFT | level
        yield operation(Kind.IO_PRIORITY, "set io_class" if service.io_class else "set io_priority", numbers=[value])
    if service.timer_slack is not None:
        yield operation(Kind.TIMER_SLACK, "set timer_slack", numbers=[round(service.timer_slack * 1e9)])
    score = service.oom_score_adj if service.oom_score_adj is not None else 0 if launch.spared else None
    if score is not None:
        yield _score(score)
    for name, wanted in service.limits.items():  # the default limit of descriptors raises no hard limit
        if (pair := early_limit(name, *wanted)) is not None:
            yield _limit(Kind.LIMIT, name, *pair)


def with_descriptors(limits: Limits, nofile_soft: int) -> Limits:
    """Return `limits` with a limit of descriptors: by default the soft one that spawnd was started with."""
    if "nofile" in limits:
        return limits
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return limits | {"nofile": (_lower(nofile_soft, hard), hard)}


def early_limit(name: str, soft: int, hard: int) -> tuple[int, int] | None:
    """Return what to set of a limit at first: of a limit that binds this process a rise of the hard one, or nothing."""
    if name not in BIND_US:
        return soft, hard
    soft_now, hard_now = resource.getrlimit(RESOURCES[name])
    return None if _lower(hard, hard_now) == hard else (soft_now, hard)


def _lower(one: int, other: int) -> int:
    if UNLIMITED in (one, other):
        return other if one == UNLIMITED else one
    return min(one, other)


@_kept
def _score(score: int) -> bytes:
    return operation(Kind.WRITE, "write", OOM_SCORE_ADJ, strings=[str(score)])


@_kept
def _limit(kind: int, name: str, soft: int, hard: int) -> bytes:
    is_mixed_up = soft & _UNLIMITED > hard & _UNLIMITED
    refused, cause = _MIXED_UP if is_mixed_up else _NO_PRIVILEGE
    return operation(
        kind, f"set limit {name}", numbers=[RESOURCES[name], soft, hard], refused=refused, cause=cause
    )


_UNLIMITED = 0xFFFFFFFFFFFFFFFF  # RLIM_INFINITY
_MIXED_UP = errno.EINVAL, "the soft limit is above the hard one"
_NO_PRIVILEGE = errno.EPERM, "raising the hard limit takes CAP_SYS_RESOURCE"


def _environment(launch: Launch) -> Operations:
    """Yield the steps for variables of the definition, its files and the protocols; later ones win."""
    service = launch.service
    variables = {**service.login_env, **launch.env}
    if launch.env_files:
        yield from _assignments(variables)
        variables = {}
    for path in launch.env_files:
        need_not_exist = path.startswith("-")
        numbers = [need_not_exist, *_rights(launch.rights)]
        yield operation(Kind.ENV_FILE, "read", path[1:] if need_not_exist else path, numbers)
    pids = []
    if launch.fds and service.listen_fds:
        variables["LISTEN_FDS"] = str(len(launch.fds))
        variables["LISTEN_FDNAMES"] = ":".join([name for name, _ in launch.fds])
        pids.append("LISTEN_PID")
    if launch.notify_socket:
        variables["NOTIFY_SOCKET"] = launch.notify_socket
    if launch.mark:
        variables[SERVICE_MARK] = launch.mark
    if launch.watchdog_usec:
        variables["WATCHDOG_USEC"] = str(launch.watchdog_usec)
        pids.append("WATCHDOG_PID")
    yield from _assignments(variables)
    for name in pids:
        yield _own_pid(name)
    if service.forking:
        yield operation(Kind.OWN_START, "set up", strings=[START_MARK])


@_kept
def _own_pid(name: str) -> bytes:
    return operation(Kind.OWN_PID, "set up", strings=[name])


def _assignments(variables: Mapping[str, str]) -> Operations:
    if variables:
        strings = [f"{name}={value}" for name, value in variables.items()]
        yield operation(Kind.ENVIRONMENT, "set up", strings=strings)


def _rights(rights: Rights | None) -> list[int]:
    return [0, 0, 0] if rights is None else [1, rights.uid, rights.gid, *rights.gids]


def _namespaces(service: Service) -> Operations:
    """Yield the steps into a network namespace; with its own resolver, mounts that follow those of the host."""
    if not service.netns:
        return
    yield operation(Kind.ENTER_NAMESPACE, "enter network namespace", f"{FOLDER}/{service.netns}", [CLONE_NEWNET])
    source, target = f"{FILES}/{service.netns}/{RESOLVER}", f"/etc/{RESOLVER}"
    inner = [
        operation(Kind.MOUNT_NAMESPACE, "make a mount namespace"),
        operation(Kind.MOUNT, "make a mount namespace", numbers=[MS_SLAVE | MS_REC], strings=["none", "/", "", ""]),
        operation(Kind.MOUNT, f"bind over {target}", source, [MS_BIND], [source, target, "", ""]),
    ]
    yield operation(Kind.IF_EXISTS, path=source, numbers=[len(inner)])
    yield from inner


def _place_and_user(launch: Launch) -> Operations:
    service, is_root = launch.service, launch.is_root
    if service.chroot:
        yield operation(Kind.CHROOT, "chroot", service.chroot, _rights(launch.rights))
    if launch.keyring:
        yield _keyring()
    if service.capabilities is not None:
        yield from _kept_capabilities(launch, service.capabilities)
    elif is_root:
        yield from _user(service.uid, service.gid, service.gids, service.uid != 0)
    elif os.geteuid() != 0:
        yield _dropped()


@_kept
def _keyring() -> bytes:
    return operation(Kind.KEYRING, "cannot make a session keyring", cause="services share one with the supervisor")


@_kept
def _user(uid: int, gid: int, gids: tuple[int, ...], drops: bool) -> Made:
    return (
        operation(Kind.GROUPS, "set groups", numbers=gids),
        operation(Kind.GID, f"set gid {gid}", numbers=[gid]),
        operation(Kind.UID, f"set uid {uid}", numbers=[uid]),
        *((_dropped(),) if drops else ()),
    )


@_kept
def _dropped() -> bytes:
    return operation(Kind.CAPABILITIES, "drop capabilities", numbers=[0])


def _kept_capabilities(launch: Launch, names: Iterable[str]) -> Operations:
    service, kept = launch.service, _capabilities(names)
    # An unprivileged spawnd need not reduce the set, from which only root regains capabilities at exec.
    if launch.is_root or has_effective(SETPCAP):
        yield operation(Kind.BOUNDING_SET, "reduce the bounding set", numbers=[_set(kept)])
    yield operation(Kind.KEEP_CAPABILITIES, "set keepcaps")
    if launch.is_root:
        yield from _user(service.uid, service.gid, service.gids, False)
    yield operation(Kind.CAPABILITIES, "set capabilities", numbers=[_set(kept)])
    # Root needs none, because exec gives it the bounding set.
    if (service.uid if launch.is_root else os.geteuid()) != 0:
        for number, name in kept.items():
            yield operation(Kind.AMBIENT_CAPABILITY, f"raise ambient capability {name}", numbers=[number])


def _set(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)


def _capabilities(names: Iterable[str]) -> dict[int, str]:
    """Return capabilities by number. Raises StepError for an unknown capability, or one that spawnd lacks."""
    ours = permitted()
    found = {}
    for name in names:
        if name not in CAPABILITIES:
            raise failed(f"keep capability {name}", "", errno.EINVAL, "there is no such capability")
        number = CAPABILITIES.index(name)
        if not ours >> number & 1:
            raise failed(f"keep capability {name}", "", errno.EPERM, "the supervisor does not have it itself")
        found[number] = name
    return found


def _end(launch: Launch, limits: Limits) -> Operations:
    """Yield the last steps; the working directory follows the change of user, whose rights the kernel checks."""
    service = launch.service
    yield from _folder(service.cwd, launch.rights, service.umask)
    for name in BIND_US:
        if name in limits:
            yield _limit(Kind.BINDING_LIMIT, name, *limits[name])
    yield from _go(service.no_new_privs)
    if not launch.worker:
        yield operation(
            *(Kind.EXECUTE, "exec", launch.argv[0], [service.expand_env], launch.argv),
            refused=errno.ENOMEM,
            cause="the limits leave no memory for it",
        )


@_kept
def _folder(path: str, rights: Rights | None, umask: int) -> Made:
    cause = "the user of the service may not enter it"
    enter = operation(Kind.FOLDER, "change directory", path, _rights(rights), refused=errno.EACCES, cause=cause)
    return enter, operation(Kind.UMASK, numbers=[umask])


@_kept
def _go(no_new_privs: bool) -> Made:
    go = operation(Kind.GO, "wait for the supervisor")
    return (go, operation(Kind.NO_NEW_PRIVS, "set no_new_privs")) if no_new_privs else (go,)
