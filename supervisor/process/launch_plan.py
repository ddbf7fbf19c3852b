"""The plan of a launch: the steps of a service's process in a fixed order.

The order is a rule, which `plan.h` checks. Steps that need root or a path of the host come before chroot and
the change of user. The change of user comes before the kept capabilities and the working directory. Limits
are set in two phases; limits that would bind the process itself come at the end. Then the process waits for
spawnd; no_new_privs is last.

The plan is computed from values only. Data that only the kernel knows, such as the pid, are left to `launch`.
Steps that many services have in common are made once: the last ones are kept by their values. Environments and
arguments are not, as they may be secret. `Plans` keeps the plans of services that start again.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter

from supervisor.definitions.service import FIRST, UNLIMITED, Service, slot_name
from supervisor.launch import ACCEPTOR
from supervisor.launch.operations import EXPANDS, HAS_ARGV0, Kind, operation, plan
from supervisor.launch.program import Arrival
from supervisor.linux.capabilities import CAPABILITIES, SETPCAP, has_effective, permitted
from supervisor.linux.namespaces import CLONE_NEWNET, MS_BIND, MS_REC, MS_SLAVE
from supervisor.linux.signal_mask import OF_PROCESSES
from supervisor.process.child_descriptors import make_table, rights_numbers, sources_of
from supervisor.process.failure import failed
from supervisor.process.files import Rights
from supervisor.process.launch import Launch
from supervisor.process.marks import SERVICE_MARK, START_MARK
from supervisor.process.network_namespace import FILES, FOLDER, RESOLVER
from supervisor.process.paths import LOOK

Operations = Iterator[bytes]
Made = tuple[bytes, ...]

MOST_KEPT = 64
LARGEST_KEPT = 4096  # bytes of a plan
_kept = lru_cache(MOST_KEPT)  # results of each function, some hundred bytes each
Limits = dict[str, tuple[int, int]]  # soft and hard
Pairs = tuple[tuple[str, tuple[int, int]], ...]  # the same, to be hashed

OOM_SCORE_ADJ = "/proc/self/oom_score_adj"  # proc_pid_oom_score_adj(5)
# <linux/ioprio.h>
IOPRIO_CLASS_SHIFT = 13
CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}
NORMAL = 4  # the priority of a class without an explicit one
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


def is_spared() -> bool:
    """Whether the kernel spares this process when memory is short, as systemd may have set it up."""
    with open(OOM_SCORE_ADJ, encoding="ascii") as file:
        return int(file.read()) < 0


def descriptors(launch: Launch) -> set[int]:
    """Return the descriptors of spawnd that the service gets."""
    return {source for source in sources_of(launch) if type(source) is int}


def make_plan(launch: Launch, arrival: Arrival, hears: bool = True) -> bytes:
    """Return the plan. Without `hears`, signals stay blocked in the service.

    Raises StepError for an impossible table, or an unavailable capability.
    """
    service = launch.service
    limits, early, hard = _limits_now(service)
    operations = [
        # Another user could not write its own oom_score_adj then, and has nothing to hide. A forked worker stays as it
        # is. An exec resets signals that are not ignored.
        *_begin(launch.is_root and not launch.worker, hears, OF_PROCESSES if launch.worker else launch.ignored),
        *make_table(launch, arrival),
        *(_files(launch) if launch.marks or launch.emptied or launch.rewound else ()),
        *_cgroup(launch.cgroup),
        *_attributes(*_of_attributes(service), launch.spared, early),
        *_environment(launch),
        *_place(service.netns, service.chroot, launch.rights if service.chroot else None, launch.keyring),
        *_user(launch),
        *_end(*_of_end(service), launch.rights if service.cwd != "/" else None, limits, launch.nofile_soft, hard),
        *_execution(launch),
    ]
    return plan(operations)


class Plans(dict[str, tuple[tuple[object, ...], bytes]]):
    """The plans of services that start again and again, mostly with the same values: the last one of each, by name.

    A plan may have secrets, like the definition: the owner drops it (`pop`) when the service comes to rest.
    """

    def plan(self, launch: Launch, arrival: Arrival, hears: bool = True) -> bytes:
        """Return what `make_plan` returns."""
        name = launch.service.name
        values = launch[1:], arrival, hears, _limits_now(launch.service)
        kept = self.pop(name, None)
        if kept is None or kept[0] != values:
            kept = values, make_plan(launch, arrival, hears)
            if len(self) == MOST_KEPT:
                del self[next(iter(self))]
        if len(kept[1]) <= LARGEST_KEPT:
            self[name] = kept  # the last one of all
        return kept[1]


@_kept
def _begin(is_hidden: bool, hears: bool, reset: int) -> Made:
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


def _cgroup(path: str) -> Made:
    return (operation(Kind.WRITE, "enter cgroup", f"{path}/cgroup.procs", strings=["0"]),) if path else ()


_of_attributes = attrgetter(
    "nice", "cpu_affinity", "scheduling", "io_class", "io_priority", "timer_slack", "oom_score_adj"
)


@_kept
def _attributes(
    nice: int | None,
    cpu_affinity: tuple[int, ...],
    scheduling: str,
    io_class: str | None,
    io_priority: int | None,
    timer_slack: float | None,
    oom_score_adj: int | None,
    spared: bool,
    limits: Pairs,
) -> Made:
    steps = []
    if nice is not None:
        steps.append(operation(Kind.NICE, "set nice", numbers=[nice]))
    if cpu_affinity:
        steps.append(operation(Kind.AFFINITY, "set cpu_affinity", numbers=cpu_affinity))
    if scheduling:
        policy, _, priority = scheduling.partition(":")
        steps.append(operation(Kind.SCHEDULING, "set scheduling", numbers=[POLICIES[policy], int(priority or 0)]))
    if io_class is not None or io_priority is not None:
        level = 0 if io_class == "idle" else NORMAL if io_priority is None else io_priority
        value = CLASSES[io_class or "best-effort"] << IOPRIO_CLASS_SHIFT | level
        steps.append(operation(Kind.IO_PRIORITY, "set io_class" if io_class else "set io_priority", numbers=[value]))
    if timer_slack is not None:
        steps.append(operation(Kind.TIMER_SLACK, "set timer_slack", numbers=[round(timer_slack * 1e9)]))
    if oom_score_adj is not None or spared:
        steps.append(operation(Kind.WRITE, "write", OOM_SCORE_ADJ, strings=[str(oom_score_adj or 0)]))
    return *steps, *(_limit(Kind.LIMIT, name, *pair) for name, pair in limits)


def _limits_now(service: Service) -> tuple[Pairs, Pairs, int]:
    """Return the limits of a service, those to set at first, and the hard limit of descriptors.

    The last two depend on the limits of this process. The default limit of descriptors raises no hard limit.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if not service.limits:
        return (), (), hard
    early = [(name, pair) for name, wanted in service.limits.items() if (pair := early_limit(name, *wanted))]
    return tuple(service.limits.items()), tuple(early), hard


def with_descriptors(limits: Limits, soft: int, hard: int) -> Limits:
    """Return `limits` with a limit of descriptors: by default `soft`, with which spawnd was started, below `hard`."""
    return limits if "nofile" in limits else limits | {"nofile": (_lower(soft, hard), hard)}


def early_limit(name: str, soft: int, hard: int) -> tuple[int, int] | None:
    """Return what to set of a limit at first: of a limit that binds this process a rise of the hard one, or nothing."""
    return _rise(name, hard) if name in BIND_US else (soft, hard)


def _rise(name: str, hard: int) -> tuple[int, int] | None:
    """Return a limit of this process with a hard one that is raised to `hard`; None if it need not be raised."""
    soft_now, hard_now = resource.getrlimit(RESOURCES[name])
    return None if _lower(hard, hard_now) == hard else (soft_now, hard)


def as_acceptor(service: Service) -> Service:
    """Return the definition by which the acceptor of a service is set up: what is for sessions is in `session_plan`.

    The user of a session may raise no hard limit, so this is done here.
    """
    raised = {name: pair for name, (_, hard) in service.limits.items() if (pair := _rise(name, hard))}
    return replace(service, limits=raised, no_new_privs=False, listen_fds=False)


def session_plan(service: Service, nofile_soft: int) -> bytes:
    """Return the plan of a session: `docs/design/accept.md`."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = with_descriptors(service.limits, nofile_soft, hard)
    is_first = service.accept is None or service.accept.descriptor == 0
    told = () if is_first or not service.listen_fds else (*_assigned(_ONE_CONNECTION), _LISTEN_PID)
    argv = (service.exec, *service.arg)
    return plan([
        *_begin(False, True, 0),
        operation(Kind.MOVE, "place", numbers=[FIRST, 0, FIRST, 1] if is_first else [FIRST, FIRST]),
        *(_limit(Kind.LIMIT, name, *pair) for name, pair in limits.items() if name not in BIND_US),
        *told,
        *(_limit(Kind.BINDING_LIMIT, name, *limits[name]) for name in BIND_US if name in limits),
        *((operation(Kind.NO_NEW_PRIVS, "set no_new_privs"),) if service.no_new_privs else ()),
        _executing(argv, service.argv0, service.expand_env),
    ])  # fmt: skip


_ONE_CONNECTION = ["LISTEN_FDS=1", "LISTEN_FDNAMES=connection"]


def _lower(one: int, other: int) -> int:
    if UNLIMITED in (one, other):
        return other if one == UNLIMITED else one
    return min(one, other)


def _limit(kind: int, name: str, soft: int, hard: int) -> bytes:
    is_mixed_up = soft & _UNLIMITED > hard & _UNLIMITED
    refused, cause = _MIXED_UP if is_mixed_up else _NO_PRIVILEGE
    return operation(kind, f"set limit {name}", numbers=[RESOURCES[name], soft, hard], refused=refused, cause=cause)


_UNLIMITED = 0xFFFFFFFFFFFFFFFF  # RLIM_INFINITY
_MIXED_UP = errno.EINVAL, "the soft limit is above the hard one"
_NO_PRIVILEGE = errno.EPERM, "raising the hard limit takes CAP_SYS_RESOURCE"


def _environment(launch: Launch) -> list[bytes]:
    """Return the steps for variables of the definition, its files and the protocols; later ones win."""
    service, steps = launch.service, []
    variables = [*map("=".join, service.login_env.items()), *map("=".join, launch.env.items())]
    if launch.env_files:
        steps = [*_assigned(variables), *_env_files(launch.env_files, launch.rights)]
        variables = []
    pids = []
    if launch.fds and service.listen_fds:
        variables += f"LISTEN_FDS={len(launch.fds)}", "LISTEN_FDNAMES=" + ":".join([name for name, _ in launch.fds])
        pids.append(_LISTEN_PID)
    if launch.notify_socket:
        variables.append(f"NOTIFY_SOCKET={launch.notify_socket}")
    if launch.mark:
        variables.append(f"{SERVICE_MARK}={launch.mark}")
    if launch.watchdog_usec:
        variables.append(f"WATCHDOG_USEC={launch.watchdog_usec}")
        pids.append(_WATCHDOG_PID)
    steps += *_assigned(variables), *pids
    if service.forking:
        steps.append(_START_MARK)
    return steps


_LISTEN_PID = operation(Kind.OWN_PID, "set up", strings=["LISTEN_PID"])
_WATCHDOG_PID = operation(Kind.OWN_PID, "set up", strings=["WATCHDOG_PID"])
_START_MARK = operation(Kind.OWN_START, "set up", strings=[START_MARK])


def _assigned(variables: list[str]) -> Made:
    return (operation(Kind.ENVIRONMENT, "set up", strings=variables),) if variables else ()


def _env_files(paths: Iterable[str], rights: Rights | None) -> Operations:
    for path in paths:
        need_not_exist = path.startswith("-")
        numbers = [need_not_exist, *rights_numbers(rights)]
        yield operation(Kind.ENV_FILE, "read", path[1:] if need_not_exist else path, numbers)


@_kept
def _place(netns: str, chroot: str, rights: Rights | None, keyring: bool) -> Made:
    steps = [*_namespaces(netns)] if netns else []
    if chroot:
        steps.append(operation(Kind.CHROOT, "chroot", chroot, rights_numbers(rights)))
    if keyring:
        cause = "services share one with the supervisor"
        steps.append(operation(Kind.KEYRING, "cannot make a session keyring", cause=cause))
    return tuple(steps)


def _namespaces(netns: str) -> Operations:
    """Yield the steps into a network namespace; with its own resolver, mounts that follow those of the host."""
    yield operation(Kind.ENTER_NAMESPACE, "enter network namespace", f"{FOLDER}/{netns}", [CLONE_NEWNET])
    source, target = f"{FILES}/{netns}/{RESOLVER}", f"/etc/{RESOLVER}"
    inner = [
        operation(Kind.MOUNT_NAMESPACE, "make a mount namespace"),
        operation(Kind.MOUNT, "make a mount namespace", numbers=[MS_SLAVE | MS_REC], strings=["none", "/", "", ""]),
        operation(Kind.MOUNT, f"bind over {target}", source, [MS_BIND], [source, target, "", ""]),
    ]
    yield operation(Kind.IF_EXISTS, path=source, numbers=[len(inner)])
    yield from inner


def _user(launch: Launch) -> Iterable[bytes]:
    service = launch.service
    if service.capabilities is not None:
        return _kept_capabilities(launch, service.capabilities)
    if launch.is_root:
        return _ids(service.uid, service.gid, service.gids, service.uid != 0)
    return (_DROPPED,) if os.geteuid() != 0 else ()


_DROPPED = operation(Kind.CAPABILITIES, "drop capabilities", numbers=[0])


@_kept
def _ids(uid: int, gid: int, gids: tuple[int, ...], drops: bool) -> Made:
    return (
        operation(Kind.GROUPS, "set groups", numbers=gids),
        operation(Kind.GID, f"set gid {gid}", numbers=[gid]),
        operation(Kind.UID, f"set uid {uid}", numbers=[uid]),
        *((_DROPPED,) if drops else ()),
    )


def _kept_capabilities(launch: Launch, names: Iterable[str]) -> Operations:
    service, kept = launch.service, _capabilities(names)
    # An unprivileged spawnd need not reduce the set, from which only root regains capabilities at exec.
    if launch.is_root or has_effective(SETPCAP):
        yield operation(Kind.BOUNDING_SET, "reduce the bounding set", numbers=[_set(kept)])
    yield operation(Kind.KEEP_CAPABILITIES, "set keepcaps")
    if launch.is_root:
        yield from _ids(service.uid, service.gid, service.gids, False)
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


_of_end = attrgetter("cwd", "umask", "no_new_privs")


@_kept
def _end(cwd: str, umask: int, no_new_privs: bool, rights: Rights | None, limits: Pairs, soft: int, hard: int) -> Made:
    """Return the last steps; the working directory follows the change of user, whose rights the kernel checks."""
    cause = "the user of the service may not enter it"
    binding = with_descriptors(dict(limits), soft, hard)
    return (
        operation(Kind.FOLDER, "change directory", cwd, rights_numbers(rights), refused=errno.EACCES, cause=cause),
        operation(Kind.UMASK, numbers=[umask]),
        *(_limit(Kind.BINDING_LIMIT, name, *binding[name]) for name in BIND_US if name in binding),
        operation(Kind.GO, "wait for the supervisor"),
        *((operation(Kind.NO_NEW_PRIVS, "set no_new_privs"),) if no_new_privs else ()),
    )


def _execution(launch: Launch) -> Made:
    if launch.worker:
        return ()
    if launch.acceptor >= 0:
        return (operation(Kind.EXECUTE_DESCRIPTOR, "exec", ACCEPTOR, [launch.acceptor], launch.argv),)
    return (_executing(launch.argv, launch.argv0, launch.service.expand_env),)


def _executing(argv: tuple[str, ...], argv0: str, expands: bool) -> bytes:
    flags = EXPANDS * expands | HAS_ARGV0 * bool(argv0)
    words = (argv[0], argv0, *argv[1:]) if argv0 else argv
    return operation(Kind.EXECUTE, "exec", argv[0], [flags], words, errno.ENOMEM, NO_MEMORY)


NO_MEMORY = "the limits leave no memory for it"
