"""Marks in the environment of processes: they prove the service of a process that left its session and parent.

Processes inherit the marks of their service, whatever session they have made. Only orphans that spawnd
inherited as the subreaper need that proof; with cgroups no mark is ever read.

The environment of a process is in its memory. The kernel reads it under locks that a hostile or hung process
may hold for ever: the mmap lock and the lock of execve. So a child reads it, with a thread per process. The
child closes its pipe after a time limit, and spawnd does not wait for the end of the child.

Marks also identify the processes of daemons that go into the background, and the process to be supervised.
"""

from __future__ import annotations

import errno
import json
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from supervisor.definitions.service import Service
from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.process.cgroup import SESSIONS, Leaf, cgroup_of
from supervisor.process.children import TRIES, WHOLE, AnsweringChild, Children, start_child
from supervisor.process.files import Rights, open_as
from supervisor.process.leftovers import family
from supervisor.process.pids import STAT_MAX, Process, look_at_all, read_process, read_processes, runs_as

SERVICE_MARK = "SPAWND_MARK"  # a random word that stays the same for a service
START_MARK = "INVOCATION_ID"  # of each start of a daemon that goes into the background; see systemd.exec(5)
LARGEST = 2 << 20  # bytes read of an environment
LONGEST = 32  # characters of a mark
AT_ONCE = 500  # processes read by a child, with a thread each
MOST_TOLD = 8  # processes named in a log line
READ_LIMIT = 2.0  # seconds for the child to read them all
TIME_LIMIT = 5.0  # seconds until a child without an answer is given up
RETRY = 1.0  # seconds until another attempt to fork a child
LOOK_AGAIN = 0.01  # seconds
ENVIRONMENT_END = 48  # field of `/proc/PID/stat` behind the name: 0 until an execve has placed the environment

WhenReaped = Callable[[int, Callable[[], None]], None]

LONGEST_PID_FILE = 64  # bytes; a longer file is no pid file


class Marked(NamedTuple):
    """An orphan by start time, with its marks: '' for a mark that is missing or cannot be read."""

    started: int
    service: str = ""
    start: str = ""


def start_mark(pid: int, started: int) -> str:
    """Return the mark of a start by its first process, which no other process has had since boot."""
    return f"{started:024x}{pid:08x}"


class MarkReader:
    """Cache of the marks of orphans; each is read once, by one child at a time."""

    def __init__(self, loop: Loop, children: Children) -> None:
        self._loop = loop
        self._children = children
        self._known: dict[int, Marked] = {}
        self._asked: list[Callable[[], None]] = []
        self._is_busy = False

    def look(self, done: Callable[[], None]) -> None:
        """Read the marks of all orphans that exist now; then the loop calls `done`."""
        self._asked.append(done)
        if not self._is_busy:
            self._begin()

    def orphans(self) -> dict[int, Marked]:
        """Return the orphans of the last look by pid; some may have ended since."""
        registered = self._children.pids()
        return {pid: marked for pid, marked in self._known.items() if pid not in registered}

    def _begin(self) -> None:
        self._is_busy = True
        if not self._children.are_all_known:
            self._loop.call_later(LOOK_AGAIN, self._begin)
            return
        try:
            living = orphans_but(self._children.pids())
        except OSError as error:
            self._try_again(error, self._begin)
            return
        asked, self._asked = self._asked, []
        self._known = {pid: marked for pid, marked in self._known.items() if living.get(pid) == marked.started}
        self._go_on({pid: started for pid, started in living.items() if pid not in self._known}, asked)

    def _go_on(self, new: Mapping[int, int], asked: Iterable[Callable[[], None]]) -> None:
        """Read the marks of `new` orphans, at most `AT_ONCE` per child."""
        if not new:
            self._end(asked)
            return
        some = dict(islice(new.items(), AT_ONCE))
        rest = dict(islice(new.items(), AT_ONCE, None))

        def answered(answer: bytes, _in_time: bool) -> None:
            marks = parse_marks(answer)
            if missing := [str(pid) for pid in some if pid not in marks]:
                text = "cannot read the marks of processes %s: no answer within %g s"
                log.warning(text, ", ".join(missing[:MOST_TOLD]), READ_LIMIT)
            self._known |= {pid: Marked(started, *marks.get(pid, ())) for pid, started in some.items()}
            self._go_on(rest, asked)

        try:
            AnsweringChild(self._loop, self._children, lambda fd: tell_all_marks(fd, some), TIME_LIMIT, answered)
        except OSError as error:
            self._try_again(error, lambda: self._go_on(new, asked))

    def read(self, processes: Mapping[int, int], done: Callable[[dict[int, Marked]], None]) -> None:
        """Read the marks of processes, by pid and start time, that need be no orphans; then the loop calls `done`."""
        self._read_on(processes, {}, done)

    def _read_on(
        self, left: Mapping[int, int], found: dict[int, Marked], done: Callable[[dict[int, Marked]], None]
    ) -> None:
        if not left:
            self._loop.call_soon(lambda: done(found))
            return
        some = dict(islice(left.items(), AT_ONCE))
        rest = dict(islice(left.items(), AT_ONCE, None))

        def answered(answer: bytes, _in_time: bool) -> None:
            marks = parse_marks(answer)
            more = {pid: Marked(started, *marks[pid]) for pid, started in some.items() if pid in marks}
            self._read_on(rest, found | more, done)

        try:
            AnsweringChild(self._loop, self._children, lambda fd: tell_all_marks(fd, some), TIME_LIMIT, answered)
        except OSError as error:
            self._try_again(error, lambda: self._read_on(left, found, done))

    def _try_again(self, error: OSError, call: Callable[[], None]) -> None:
        log.warning("cannot read the marks of processes, trying again in %g s: %s", RETRY, error.strerror)
        self._loop.call_later(RETRY, call)

    def _end(self, asked: Iterable[Callable[[], None]]) -> None:
        self._is_busy = False
        for done in asked:
            self._loop.call_soon(done)
        if self._asked:
            self._begin()


def orphans_but(known: Collection[int]) -> dict[int, int]:
    """Return pids and start times of living children of this process outside `known`.

    Children in our own session are no orphans: services and their processes have left it.
    """
    try:
        with open("/proc/thread-self/children", "rb") as file:
            pids = {int(pid) for pid in file.read().split()}
        found = read_processes(sorted(pids.difference(known)))
    except OSError:  # CONFIG_PROC_CHILDREN
        ourselves = os.getpid()
        found = [each for each in look_at_all() if each.parent == ourselves and each.pid not in known]
    ours = os.getsid(0)
    others = [process for process in found if process.session != ours and process.state not in "ZX"]
    # a process without a start time would not show its environment either
    return {process.pid: process.started for process in others if process.started >= 0}


def strangers(known: Collection[int]) -> dict[int, int]:
    """Return pids and start times of the living processes of the host outside `known` and our own session."""
    nobodys = (0, os.getsid(0))
    return {
        process.pid: process.started
        for process in look_at_all()
        if process.pid not in known
        and process.started >= 0
        and process.state not in "ZX"
        and process.session not in nobodys
    }


def with_mark(mark: str, uid: int, when_reaped: WhenReaped) -> list[Process]:
    """Return the living processes of a user with a service's mark, of all processes of the host.

    Meant for a spawnd that takes over, whose predecessor's orphans are not its own: the call waits for `READ_LIMIT`.
    """
    before = {each.pid: each.started for each in look_at_all() if each.state not in "ZX" and runs_as(each.pid, uid)}
    pids, found = list(before), dict[int, tuple[str, str]]()
    for first in range(0, len(pids), AT_ONCE) if mark else ():
        found |= _marks_of(pids[first : first + AT_ONCE], when_reaped)
    marked = read_processes([pid for pid, (service, _start) in found.items() if service == mark])
    return [each for each in marked if each.started == before[each.pid] and each.state not in "ZX"]


def _marks_of(pids: Sequence[int], when_reaped: WhenReaped) -> dict[int, tuple[str, str]]:
    """Return the marks of these processes as far as a child has read them by its time limit."""
    data, deadline = b"", time.monotonic() + TIME_LIMIT
    for _ in range(TRIES):  # a child may be killed
        try:
            child, fd = start_child(lambda fd: tell_all_marks(fd, pids))
        except OSError as error:
            log.warning("cannot read the marks of processes: %s", error.strerror)
            break
        when_reaped(child, lambda: None)
        data = _read_until(fd, deadline)
        os.close(fd)
        if data.endswith(WHOLE) or time.monotonic() > deadline:
            break
    return parse_marks(data.removesuffix(WHOLE))


def _read_until(fd: int, deadline: float) -> bytes:
    """Read a pipe to its end, or until the deadline."""
    poll, data = select.poll(), b""
    poll.register(fd, select.POLLIN)
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000) and (piece := os.read(fd, LARGEST)):
        data += piece
    return data


# the child


def tell_all_marks(fd: int, pids: Iterable[int]) -> None:
    """Write the marks of at most `AT_ONCE` processes to `fd`, for `parse_marks`, and close it."""
    deadline = time.monotonic() + READ_LIMIT
    threads = []
    for pid in pids:
        thread = threading.Thread(target=_tell_marks, args=(fd, pid, deadline), daemon=True)
        if _start(thread, deadline):
            threads.append(thread)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    os.close(fd)  # the exit of the process may have to wait for a thread, the reader of the pipe must not


def _start(thread: threading.Thread, deadline: float) -> bool:
    """Start a thread as soon as the limits allow it; return False after the deadline."""
    while time.monotonic() < deadline:
        try:
            thread.start()
        except RuntimeError:  # RLIMIT_NPROC, pids.max
            time.sleep(LOOK_AGAIN)
        else:
            return True
    return False


def _tell_marks(fd: int, pid: int, deadline: float) -> None:
    service, start = marks_in(_read_environment(pid, deadline))
    with suppress(OSError):
        os.write(fd, f"{pid} {service} {start}\n".encode())  # atomic: less than PIPE_BUF


def _read_environment(pid: int, deadline: float) -> bytes:
    """Return the environment of a process; empty if there is none or it may not be read. May block.

    In the middle of an execve there is no environment yet. The process may wait there for the processor.
    """
    data = b""
    with suppress(OSError):
        while True:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
                while len(data) < LARGEST and (chunk := file.read(LARGEST)):
                    data += chunk
            if data or not _is_in_execve(pid) or time.monotonic() > deadline:
                break
            time.sleep(LOOK_AGAIN)
    return data


def _is_in_execve(pid: int) -> bool:
    """Whether a living process has no environment yet. Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        fields = file.read(STAT_MAX).rpartition(b")")[2].split()
    return fields[0] not in (b"Z", b"X") and fields[ENVIRONMENT_END] == b"0"


def marks_in(environment: bytes) -> tuple[str, str]:
    """Return the marks of service and start in an environment, '' for each missing or invalid one."""
    variables: dict[bytes, bytes] = {}
    for entry in environment.split(b"\0"):
        name, _, value = entry.partition(b"=")
        variables.setdefault(name, value)
    values = (variables.get(name.encode(), b"") for name in (SERVICE_MARK, START_MARK))
    service, start = (value.decode() if value.isalnum() and len(value) <= LONGEST else "" for value in values)
    return service, start


def parse_marks(data: bytes) -> dict[int, tuple[str, str]]:
    """Return the marks of service and start by pid, as the child wrote them."""
    found = {}
    for line in data.decode().splitlines():
        fields = line.split(" ")
        if len(fields) == 3:
            found[int(fields[0])] = fields[1], fields[2]
    return found


def read_pid_file(path: str, rights: Rights) -> tuple[int, bool]:
    """Return the number in a pid file, and whether root alone may write to the file.

    Raises OSError, with EINVAL if it contains no number.
    """
    fd = open_as(path, os.O_RDONLY, rights, both_ways=False)
    try:
        status = os.fstat(fd)
        text = os.read(fd, LONGEST_PID_FILE).strip()
    finally:
        os.close(fd)
    if not text.isdigit() or len(text) > 10:
        raise OSError(errno.EINVAL, "no process id is in it")
    return int(text), status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def tell_pid_file(fd: int, path: str, rights: Rights) -> None:
    """Write the result of `read_pid_file` to `fd`, for `parse_pid_file`; a child does this, as it may block."""
    try:
        found: tuple[int, bool] | tuple[int, str] = read_pid_file(path, rights)
    except OSError as error:
        found = -(error.errno or errno.EIO), error.strerror or str(error)
    with open(fd, "wb") as pipe:
        pipe.write(json.dumps(found).encode())


def parse_pid_file(answer: bytes) -> tuple[int, bool]:
    """Return what `read_pid_file` returned in the child, or raise its OSError."""
    if not answer:
        raise OSError(errno.EIO, "the process that reads it has ended")
    number, rest = json.loads(answer)
    if number < 0:
        raise OSError(-number, rest)
    return number, rest


def may_name(service: Service, pid: int, *, is_roots: bool) -> bool:
    """Return whether the pid file of a service may name an orphan without a mark.

    A user's file may name processes of that user alone. For a service that is not root's, the path may lead
    to a file of root that was written for another service.
    """
    return (is_roots and service.uid == 0) or runs_as(pid, service.uid)


def name_of(pid: int) -> str:
    """Return the kernel's name of a living process, '' without one."""
    process = read_process(pid)
    if process is None or process.state in "ZX":
        return ""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return os.fsdecode(file.read().rstrip(b"\n"))
    except OSError:  # it has ended since
        return ""


def tops(processes: Mapping[int, Process]) -> list[Process]:
    """Return the processes whose parent is not among them."""
    return [process for process in processes.values() if process.parent not in processes]


def living_in(cgroup: Leaf) -> dict[int, Process]:
    """Return the living processes of a cgroup by pid."""
    return {process.pid: process for process in read_processes(cgroup.processes()) if process.state not in "ZX"}


def sessions_among(found: Iterable[Process]) -> dict[int, tuple[int, int]]:
    """Return start time and number of the cgroup, 0 without one, of the first process of each session by pid.

    In a session's own cgroup that is the oldest of those that have made a session; within a tick, the lower pid tells.
    """
    sessions: dict[int, tuple[int, int]] = {}
    taken = set()
    for process in sorted(found, key=lambda process: (process.started, process.pid)):
        if process.session == process.pid:
            below = (cgroup_of(process.pid) or "").rpartition(f"/{SESSIONS}/")[2].partition("/")[0]
            number = int(below) if below.isdecimal() else 0
            if number not in taken:
                sessions[process.pid] = process.started, number
            taken |= {number} - {0}
    return sessions


def living_relatives(others: Mapping[int, int], mark: str, orphans: Mapping[int, Marked]) -> dict[int, Process]:
    """Return the living relatives of `others` by pid, where there is no cgroup.

    `others` are pids and start times of processes of the service, including dead ones. Relatives are in their
    sessions, below them, or orphans with the mark of the service and of a start whose first process is among
    them.
    """
    starts = {start_mark(pid, started) for pid, started in others.items()}
    proved = {
        pid: marked.started
        for pid, marked in orphans.items()
        if mark and marked.service == mark and marked.start in starts
    }
    everybody = look_at_all()
    members = family({**others, **proved}, everybody)
    return {process.pid: process for process in everybody if process.pid in members}
