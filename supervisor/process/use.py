"""Use of services, found in a child: connections to their sockets, their processes, and the CPU time of these.

The child may take long: the kernel walks through all TCP connections of a namespace, once for all services. It may
hang, and is killed then. Where a service has no cgroup, its processes are those in the session of its main process.

A frozen service shows what it has accepted: none of its threads can accept another client before the answer. So this
look first waits until all threads stand still. It also looks for clients of Unix sockets that are in another network
namespace, which the kernel lists there and not here: the descriptors of the processes lead to these connections.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from supervisor.errors import StepError
from supervisor.linux.descriptors import pidfd_getfd
from supervisor.linux.socket_state import tcp_connections, unix_connections
from supervisor.process.cgroup import cpu_usage, is_frozen, processes, wait_frozen
from supervisor.process.failure import failure_of
from supervisor.process.network_namespace import enter_namespace
from supervisor.process.pids import Process, are_stopped, cpu_seconds_of_all, look_at_all, read_processes

FREEZE_LIMIT = 1.0  # seconds for all threads to stand still
FREEZE_POLL = 0.001
SOCKET = "socket:["

Place = tuple[int, int, bytes]  # family, port and address, b"" for any


class Asked(NamedTuple):
    """A running service: its main process, the folder of its cgroup, '' without one, and its accepting sockets.

    Each socket has a descriptor and the network namespace that it was made in, '' for that of spawnd. `frozen` are the
    processes that were stopped, if it is `to_stand`.
    """

    pid: int
    started: int
    cgroup: str
    sockets: tuple[tuple[int, str], ...]
    to_stand: bool = False
    frozen: frozenset[int] = frozenset()


class Use(NamedTuple):
    """The use of a service: accepted connections, CPU time, and living processes with their start times.

    `obstacle` says why the service is not to be put to sleep, or why that is unknown; '' for nothing.
    """

    connections: int = 0
    cpu_s: float | None = None
    processes: Mapping[int, int] = {}
    obstacle: str = ""

    def describe(self, is_waited_for: bool) -> str:
        """Return the use as text, '' for none. `is_waited_for`: clients or data wait at its sockets."""
        if self.connections:
            return f"{self.connections} connection{'s' if self.connections > 1 else ''}"
        return self.obstacle or ("clients wait" if is_waited_for else "")


def are_waited_for(fds: Iterable[int]) -> bool:
    """Whether a client is in the backlog of a listening socket, or data wait at another descriptor."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return any(events & select.POLLIN for _fd, events in poll.poll(0))


def answer_use(asked: Mapping[str, Asked], fd: int) -> None:
    """Write what the services are used for to a pipe; the work of a child, which has the descriptors of the sockets."""
    with open(fd, "wb") as pipe:
        pipe.write(json.dumps(look_at_use(asked)).encode())


def read_use(answer: bytes, in_time: bool) -> dict[str, Use]:
    """Return the uses that a child has written, by service; none if it has not finished in time."""
    try:
        found = json.loads(answer) if in_time else {}
    except ValueError:  # the child was killed
        found = {}
    return {
        name: Use(connections, cpu_s, {int(pid): started for pid, started in members.items()}, obstacle)
        for name, (connections, cpu_s, members, obstacle) in found.items()
    }


def look_at_use(asked: Mapping[str, Asked]) -> dict[str, Use]:
    """Look at services, by name; moves the calling thread to a network namespace that has sockets of one."""
    found = _stand_still(asked) if any(each.to_stand for each in asked.values()) else _processes(asked)
    connections = Connections()
    connections.count({name: each.sockets for name, each in asked.items()})
    uses = {}
    for name, each in asked.items():
        obstacle = found[name].obstacle or connections.failures.get(name, "")
        number = len(connections.of[name])
        if each.to_stand and not number and not obstacle:
            try:
                number = connections.foreign(each, found[name].processes)
            except OSError as error:
                obstacle = _unseen(failure_of(error).cause)
        uses[name] = found[name]._replace(connections=number, obstacle=obstacle)
    return uses


def _unseen(cause: str) -> str:
    return f"its connections cannot be seen: {cause}"


# processes


def _processes(asked: Mapping[str, Asked]) -> dict[str, Use]:
    """Return the processes of services, with their CPU time, and what forbids to stop them."""
    everybody = [] if all(each.cgroup for each in asked.values()) else look_at_all()
    sessions: dict[int, list[Process]] = {}
    for process in everybody:
        sessions.setdefault(process.session, []).append(process)
    session_of = {(process.pid, process.started): process.session for process in everybody}
    found = {}
    for name, each in asked.items():
        try:
            session = session_of.get((each.pid, each.started), -1)
            members = read_processes(list(processes(each.cgroup))) if each.cgroup else sessions.get(session, [])
            found[name] = _use_of(each, [process for process in members if process.state not in "ZX"])
        except OSError as error:
            found[name] = Use(obstacle=f"its processes cannot be seen: {failure_of(error).cause}")
    return found


def _use_of(asked: Asked, members: list[Process]) -> Use:
    living = {process.pid: process.started for process in members}
    cpu_s = cpu_usage(asked.cgroup) if asked.cgroup else cpu_seconds_of_all(living)
    if asked.pid not in living or cpu_s is None or min(living.values()) < 0:
        return Use(0, cpu_s, living, "it does not show its processes")
    if not asked.to_stand and any(process.state in "Tt" for process in members):
        return Use(0, cpu_s, living, "a process of it is stopped, as by a debugger")
    if not asked.to_stand and asked.cgroup and is_frozen(asked.cgroup):
        return Use(0, cpu_s, living, "its cgroup is frozen")
    return Use(0, cpu_s, living)


def _stand_still(asked: Mapping[str, Asked]) -> dict[str, Use]:
    """Wait until services stand still that were told to stop, and return their processes."""
    deadline = time.monotonic() + FREEZE_LIMIT
    while True:
        found = _processes(asked)
        moving = {name: _moves(asked[name], use, deadline) for name, use in found.items() if not use.obstacle}
        if not any(moving.values()) or time.monotonic() >= deadline:
            break
        time.sleep(FREEZE_POLL)
    return {name: use._replace(obstacle=use.obstacle or moving.get(name, "")) for name, use in found.items()}


def _moves(asked: Asked, use: Use, deadline: float) -> str:
    """Return why a service does not stand still yet, '' if it does."""
    if asked.cgroup:
        return "" if wait_frozen(asked.cgroup, deadline) else "its cgroup does not freeze"
    if use.processes.keys() - asked.frozen:
        return "it starts processes"
    return "" if are_stopped(use.processes) else "its processes do not stop"


# connections


class Connections:
    """The connections of the sockets of services: an entry for each, in `of`, by name. `failures`: why unknown."""

    def __init__(self) -> None:
        self.of: dict[str, list[Place]] = {}
        self.failures: dict[str, str] = {}
        self._seen: set[int] = set()  # inodes of Unix sockets in the namespace of spawnd

    def count(self, sockets: Mapping[str, Iterable[tuple[int, str]]]) -> None:
        """Count the connections of these sockets, one network namespace after the other, that of spawnd first."""
        by_namespace: dict[str, dict[int, str]] = {}
        for name, some in sockets.items():
            self.of[name] = []
            for fd, netns in some:
                by_namespace.setdefault(netns, {})[fd] = name
        for netns in sorted(by_namespace):
            names = by_namespace[netns]
            try:
                if netns:
                    enter_namespace(netns)
                self._count_here({socket.socket(fileno=fd): name for fd, name in names.items()}, not netns)
            except (OSError, StepError) as error:
                self.failures |= dict.fromkeys(names.values(), _unseen(failure_of(error).cause))

    def _count_here(self, names: Mapping[socket.socket, str], is_ours: bool) -> None:
        places: dict[Place, set[str]] = {}
        unix: dict[int, str] = {}
        for sock, name in names.items():
            if sock.family == socket.AF_UNIX:
                unix[os.fstat(sock.fileno()).st_ino] = name
            else:
                places.setdefault(_place_of(sock), set()).add(name)
            sock.detach()
        for family in {family for family, _port, _address in places}:
            ports = {port for of, port, _address in places if of == family}
            for port, address in tcp_connections(family, ports):
                for place in ((family, port, address), (family, port, b"")):
                    for name in places.get(place, ()):
                        self.of[name].append(place)
        if unix:
            found, inodes = unix_connections()
            for inode, name in unix.items():
                self.of[name] += [(socket.AF_UNIX, 0, b"")] * found.get(inode, 0)
            self._seen |= inodes if is_ours else set()

    def foreign(self, asked: Asked, pids: Iterable[int]) -> int:
        """Return the number of connections of its Unix sockets with clients in other network namespaces.

        Raises OSError if it does not show its descriptors.
        """
        own = {fd: _name_of_unix(fd) for fd, _netns in asked.sockets}
        names = {name for name in own.values() if name}
        known = self._seen | {os.fstat(fd).st_ino for fd in own}
        return sum(_connections_of(pid, names, known) for pid in pids) if names else 0


def _place_of(sock: socket.socket) -> Place:
    host, port = sock.getsockname()[:2]
    address = socket.inet_pton(sock.family, host.partition("%")[0])
    return sock.family, port, address if any(address) else b""


def _name_of_unix(fd: int) -> str | bytes:
    """Return the name of a Unix socket that accepts or has accepted connections; '' for another socket."""
    sock = socket.socket(fileno=fd)
    try:
        return sock.getsockname() if sock.family == socket.AF_UNIX else ""
    finally:
        sock.detach()


def _connections_of(pid: int, names: set[str | bytes], known: set[int]) -> int:
    """Return the number of Unix sockets of a process that have one of these names and are not `known` by inode."""
    unknown = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            link = os.readlink(f"/proc/{pid}/fd/{number}")
            if link.startswith(SOCKET) and int(link[len(SOCKET) : -1]) not in known:
                unknown.add(int(number))
    if not unknown:
        return 0
    pidfd = os.pidfd_open(pid)
    try:
        return sum(map(partial(_has_name, pidfd, names), unknown))
    finally:
        os.close(pidfd)


def _has_name(pidfd: int, names: set[str | bytes], number: int) -> bool:
    fd = pidfd_getfd(pidfd, number)
    try:
        return _name_of_unix(fd) in names
    finally:
        os.close(fd)
