"""Removing a namespace: first the processes that setup scripts have left in it, then the link, name and files.

A process is killed only with proof of its origin. It has to be in the network namespace of the link, by
inode. It was started by a script of that namespace if it has the script's mark in its environment. Another
proof is that all its ancestors up to spawnd, which adopts orphans, are in there as well, and that it belongs
to no service: services have their own cgroups or marks. A user's shell in the namespace has neither proof,
and stays. A process whose namespace cannot be read, because its execve hangs, stays too. For tasks.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from supervisor.errors import SpawnError
from supervisor.linux.capabilities import raise_effective
from supervisor.linux.glance import LINK as READ_LINK
from supervisor.linux.glance import glance, read_file
from supervisor.log.logger import log
from workers.netns.build import LINK, NAMESPACE, RESOLVER
from workers.netns.files import identity as identity_of
from workers.netns.files import open_namespace, remove_resolver, take_name
from workers.netns.observed import observe
from workers.netns.plan import Plan
from workers.netns.record import Record
from workers.network.view import View

MARK = "SPAWND_SETUP"  # in the environment of a script: the mark of the run
SERVICE_MARK = "SPAWND_MARK"  # in the environment of a service without a cgroup, see supervisor/process/marks.py
PATIENCE = {signal.SIGTERM: 2.0, signal.SIGKILL: 5.0}  # seconds
LONGEST_WAY = 1000  # ancestors of a process
SPAWND, FORK_SERVER = b"spawnd", b"spawnd: fork server"

Identity = tuple[int, int]


def remove(plan: Plan, kinds: Collection[str] | None = None) -> list[str]:
    """Remove our own objects, all or those of these kinds; return the problems, as text."""
    problems = []
    removed = []
    if kinds is None or NAMESPACE in kinds:
        try:
            end_all(plan.name)
        except (OSError, SpawnError) as error:
            problems.append(str(error))
    for kind, step in _STEPS.items():
        if kinds is None or kind in kinds:
            try:
                step(plan)
                removed.append(kind)
            except (OSError, SpawnError) as error:
                problems.append(str(error))
    if removed and not problems:
        log.info("netns@%s: removed: %s", plan.name, "all" if kinds is None else ", ".join(removed))
    return problems


def remove_made(plan: Plan, record: Record) -> list[str]:
    """Remove the objects of starts that failed or were interrupted."""
    made = record.facts.made
    problems = remove(plan, made)
    if made and not problems:
        record.write(replace(record.facts, made=()))
    return problems


def _remove_link(plan: Plan) -> None:
    with View() as view:
        host = view.link(plan.link)
        if host is None:
            return
        if host.alias != plan.owner and not _is_pair(plan):
            return
        view.delete_link(host.index)


def _is_pair(plan: Plan) -> bool:
    namespace = open_namespace(plan.name)
    if namespace is None:
        return False
    try:
        return observe(plan, namespace).is_pair
    finally:
        os.close(namespace)


_STEPS: dict[str, Callable[[Plan], None]] = {
    LINK: _remove_link,
    NAMESPACE: lambda plan: take_name(plan.name),
    RESOLVER: lambda plan: remove_resolver(plan.name),
}


# leftover processes of scripts


def end_run(name: str, run: str) -> None:
    """End the leftover processes of one run of a setup script. Raises OSError."""
    namespace = open_namespace(name)
    if namespace is not None:
        identity = identity_of(namespace)
        os.close(namespace)
        _end(name, identity, lambda pid: _variables(pid).get(MARK) == run)


def end_all(name: str) -> None:
    """End the leftover processes of setup scripts in a namespace that is to be removed. Raises OSError."""
    namespace = open_namespace(name)
    if namespace is not None:
        identity = identity_of(namespace)
        os.close(namespace)
        above = adopters()
        _end(name, identity, lambda pid: _is_left_in(pid, identity, name, above))


def _is_left_in(pid: int, identity: Identity, name: str, adopters: Collection[int]) -> bool:
    variables = _variables(pid)
    if MARK in variables and variables.get("NETNS") == name:
        return True
    if SERVICE_MARK in variables or _cgroup(pid) != _cgroup("self"):
        return False
    # a parent on the way is the process that was seen if it still lives after its child has named it again
    way = _way_out(pid, identity)
    return way[-1][0] in adopters and way == _way_out(pid, identity)


def _is_in(pid: int, identity: Identity) -> bool:
    return pid in _inside([pid], identity)


def _inside(pids: Sequence[int], identity: Identity) -> list[int]:
    """Return those of these processes that are in the network namespace; zombies are in none."""
    wanted = f"net:[{identity[1]}]".encode()
    answers = glance([f"{READ_LINK}/proc/{pid}/ns/net" for pid in pids])
    return [pid for pid, answer in zip(pids, answers, strict=True) if answer == wanted]


def _variables(pid: int) -> dict[str, str]:
    """Return the environment with which a program was started, unless it has changed it: the first 16 KiB."""
    try:
        entries = os.fsdecode(read_file(f"/proc/{pid}/environ")).split("\0")
    except OSError:
        return {}
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def _cgroup(pid: int | str) -> bytes:
    """Return the line of the unified hierarchy, b'' without one; reading it never blocks."""
    try:
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            return next((line for line in file if line.startswith(b"0::")), b"")
    except OSError:
        return b""


def adopters() -> list[int]:
    """Return the processes that adopt orphans of this worker: spawnd and the fork server."""
    worker = os.getppid()
    found: list[int] = []
    pid = _parent(worker)[0]
    while pid and (title := _title(pid)).find(SPAWND) >= 0 and len(found) < 2:
        found.append(pid)
        if not title.startswith(FORK_SERVER):
            break
        pid = _parent(pid)[0]
    return found


def _way_out(pid: int, identity: Identity) -> list[tuple[int, int]]:
    """Return the processes from this one up to the first one outside, by pid and start time."""
    parent, started = _parent(pid)
    way = [(pid, started)]
    while parent and _is_in(pid, identity) and len(way) < LONGEST_WAY:
        pid = parent
        parent, started = _parent(pid)
        way.append((pid, started))
    return way


def _parent(pid: int) -> tuple[int, int]:
    """Return the parent of a process and its own start time; zeroes if it is gone."""
    try:
        fields = read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[19])


def _title(pid: int) -> bytes:
    try:
        return read_file(f"/proc/{pid}/cmdline")
    except OSError:
        return b""


def _end(name: str, identity: Identity, is_left: Callable[[int], bool]) -> None:
    """Send TERM to the processes, then KILL to the rest and to processes that they have started meanwhile."""
    raise_effective()  # CAP_SYS_PTRACE, without which processes of other users cannot be inspected
    ended: set[int] = set()
    for signum, patience in PATIENCE.items():
        deadline = time.monotonic() + patience
        signalled: set[int] = set()
        while (found := _find(identity, is_left)) and time.monotonic() < deadline:
            for pid in found:
                if signum == signal.SIGKILL or pid not in signalled:
                    _signal(pid, signum, lambda pid: _is_in(pid, identity) and is_left(pid))
            signalled |= set(found)
            ended |= set(found)
            _wait_any(found, min(0.1, max(0.0, deadline - time.monotonic())))
    tell_ended(name, len(ended))


def tell_ended(name: str, count: int) -> None:
    """Log the number of ended processes, if any."""
    if count:
        processes = "process" if count == 1 else "processes"
        log.info("netns@%s: ended %d %s that a setup script had left", name, count, processes)


def _signal(pid: int, signum: signal.Signals, is_left: Callable[[int], bool]) -> None:
    with suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            if is_left(pid):  # else its pid was reused before the pidfd was opened
                signal.pidfd_send_signal(fd, signum)
        finally:
            os.close(fd)


def _find(identity: Identity, is_left: Callable[[int], bool]) -> list[int]:
    """Return the leftover processes, without this one."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in _inside(pids, identity) if pid != os.getpid() and is_left(pid)]


def _wait_any(pids: Iterable[int], seconds: float) -> None:
    """Wait until one of the processes has ended, at most `seconds`."""
    poll = select.poll()
    fds = []
    for pid in pids:
        with suppress(OSError):
            fds.append(os.pidfd_open(pid))
            poll.register(fds[-1], select.POLLIN)
    try:
        poll.poll(seconds * 1000)
    finally:
        for fd in fds:
            os.close(fd)
