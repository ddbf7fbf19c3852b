"""Stopping a tree of processes at each of its system calls that matter: ptrace(2), on x86-64.

A tracer is a process of its own. It counts the system calls of the traced processes and of their children, and at one
of them kills processes, or has the call fail. All other processes go on once the tracer has ended.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO

from supervisor.linux.libc import function
from tests.daemon import start_time

_ptrace = function("ptrace", ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
POKEUSER, SYSCALL, DETACH, SEIZE, INTERRUPT, LISTEN, SYSCALL_INFO = 6, 24, 17, 0x4206, 0x4207, 0x4208, 0x420E
OPTIONS = 1 | 2 | 4 | 8 | 16  # TRACESYSGOOD, and the events fork, vfork, clone and exec
EVENT_EXEC, EVENT_STOP = 4, 128
WALL = 0x40000000
SYSCALL_STOP = signal.SIGTRAP | 0x80
GROUP_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
ENTRY, EXIT = 1, 2
RAX, ORIG_RAX = 10 * 8, 15 * 8
NO_CALL = 2**64 - 1

# calls that another process, or the next spawnd, can notice; so does an `openat` that writes, and a `waitid` that reaps
NOTICED = {
    1: "write", 18: "pwrite64", 20: "writev", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg",
    47: "recvmsg", 48: "shutdown", 49: "bind", 50: "listen", 56: "clone", 57: "fork", 58: "vfork", 59: "execve",
    62: "kill", 73: "flock", 77: "ftruncate", 80: "chdir", 82: "rename", 83: "mkdir", 84: "rmdir", 86: "link",
    87: "unlink", 88: "symlink", 90: "chmod", 91: "fchmod", 92: "chown", 93: "fchown", 105: "setuid", 112: "setsid",
    116: "setgroups", 117: "setresuid", 119: "setresgid", 126: "capset", 161: "chroot", 165: "mount", 166: "umount2",
    200: "tkill", 231: "exit_group", 234: "tgkill", 250: "keyctl", 254: "inotify_add_watch", 258: "mkdirat",
    260: "fchownat", 263: "unlinkat", 264: "renameat", 265: "linkat", 268: "fchmodat", 272: "unshare", 288: "accept4",
    302: "prlimit64", 307: "sendmmsg", 308: "setns", 316: "renameat2", 322: "execveat", 424: "pidfd_send_signal",
    435: "clone3", 436: "close_range", 438: "pidfd_getfd",
}  # fmt: skip
# calls that fail on an exhausted host; so do an `epoll_ctl` that adds, and a `write` to memory or the run-time folder
FALLIBLE = {
    32: ("dup", "EMFILE"), 41: ("socket", "EMFILE"), 46: ("sendmsg", "ENOBUFS"), 49: ("bind", "ENOMEM"),
    53: ("socketpair", "EMFILE"), 56: ("clone", "EAGAIN"), 57: ("fork", "EAGAIN"), 58: ("vfork", "EAGAIN"),
    77: ("ftruncate", "ENOSPC"), 82: ("rename", "ENOSPC"), 83: ("mkdir", "ENOSPC"),
    254: ("inotify_add_watch", "ENOSPC"),
    257: ("openat", "EMFILE"), 258: ("mkdirat", "ENOSPC"), 288: ("accept4", "EMFILE"), 290: ("eventfd2", "EMFILE"),
    291: ("epoll_create1", "EMFILE"), 293: ("pipe2", "EMFILE"), 294: ("inotify_init1", "EMFILE"),
    319: ("memfd_create", "EMFILE"), 434: ("pidfd_open", "EMFILE"), 435: ("clone3", "ENOMEM"),
    438: ("pidfd_getfd", "EMFILE"),
}  # fmt: skip
WRITE, FCNTL, EPOLL_CTL, WAITID, OPENAT = 1, 72, 233, 247, 257
DUPS, EPOLL_CTL_ADD, WNOWAIT = (0, 1030), 1, 0x01000000
OPENS_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Info(ctypes.Structure):
    """struct ptrace_syscall_info, <linux/ptrace.h>."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


class Step(NamedTuple):
    number: int
    call: str
    pid: int


Act = Callable[[Step], Sequence[int]]
"""Returns the pids to kill at a step, or with `fails` any pid to have the call fail; () for the other steps."""


class Tracer:
    """A process that traces `pids` and their children until it is closed, or has killed a process.

    If it `holds`, it keeps all others stopped after that until it is closed. With `fails`, the pid of a process, it
    counts and fails the calls of that process alone, and kills nothing. Otherwise it counts the calls of the processes
    `counted`, or all if there are none, but those of `uncounted`.
    """

    def __init__(
        self,
        pids: Sequence[int],
        act: Act,
        path: Path,
        holds: bool = False,
        fails: int = 0,
        counted: Set[int] = frozenset(),
        uncounted: Set[int] = frozenset(),
    ) -> None:
        self._told, tells = os.pipe2(os.O_CLOEXEC)
        self._path = path
        path.write_text("")
        self.pid = os.fork()
        if self.pid == 0:
            _be_tracer(pids, partial(_Tracing, act, tells, fails, counted, uncounted), path, holds)
        os.close(tells)
        os.read(self._told, 1)

    def wait_done(self, seconds: float) -> bool:
        """Wait until it has killed a process, or failed a call; False if it has not within this time."""
        ready, _, _ = select.select([self._told], [], [], seconds)
        return bool(ready and os.read(self._told, 1))

    def close(self) -> list[str]:
        """End it, which lets all processes go on; return the steps as lines."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._told)
        return self._path.read_text().splitlines()


def _be_tracer(pids: Sequence[int], tracing: Callable[[TextIO], _Tracing], path: Path, holds: bool) -> NoReturn:
    try:
        with path.open("a", buffering=1) as log:
            tracing(log).run(pids)
            while holds:
                signal.pause()
    except BaseException:
        path.write_text("ERROR " + traceback.format_exc().replace("\n", " | ") + "\n")
    os._exit(0)


def _request(what: int, pid: int, address: int = 0, data: int = 0) -> bool:
    return int(_ptrace(what, pid, address, data)) != -1


class _Tracing:
    def __init__(self, act: Act, tells: int, fails: int, counted: Set[int], uncounted: Set[int], log: TextIO) -> None:
        self._act = act
        self._tells = tells
        self._log = log
        self._fails = fails
        self._counted = counted
        self._uncounted = uncounted
        self._failing: dict[int, int] = {}  # errno of the call that a process makes
        self._count = 0
        self._info = Info()

    def run(self, pids: Iterable[int]) -> None:
        for pid in pids:
            if _request(SEIZE, pid, 0, OPTIONS):
                _request(INTERRUPT, pid)
        os.write(self._tells, b"+")
        while True:
            pid, status = os.waitpid(-1, WALL)
            if os.WIFSTOPPED(status) and self._stopped(pid, os.WSTOPSIG(status), status >> 16):
                return

    def _stopped(self, pid: int, stop: int, event: int) -> bool:
        """Handle a stop and let the process go on; return True at the step that was waited for."""
        if stop == SYSCALL_STOP:
            if self._is_last(pid):
                return True
            _request(SYSCALL, pid)
        elif event == EVENT_EXEC and not _is_ours(pid):
            _request(DETACH, pid)
        elif event == EVENT_STOP and stop in GROUP_STOPS:
            _request(LISTEN, pid)
        else:
            _request(SYSCALL, pid, 0, 0 if event or stop == signal.SIGTRAP else stop)
        return False

    def _is_last(self, pid: int) -> bool:
        info = self._info
        _request(SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
        if info.op == EXIT and pid in self._failing:
            _request(POKEUSER, pid, RAX, -self._failing.pop(pid) % 2**64)
        if not self._fails:
            is_counted = pid in self._counted if self._counted else pid not in self._uncounted
            name = noticed(info) if is_counted else ""
        else:
            name = fallible(info, pid) if pid == self._fails else ""
        if not name:
            return False
        self._count += 1
        self._log.write(f"{self._count} {_name(pid)}[{pid}] {name}\n")
        victims = self._act(Step(self._count, name, pid))
        if victims and self._fails:
            self._failing[pid] = getattr(errno, name.rpartition(" ")[2])
            _request(POKEUSER, pid, ORIG_RAX, NO_CALL)
            os.write(self._tells, b"k")
        elif victims:
            _kill(victims)
            os.write(self._tells, b"k")
            return True
        return False


def _kill(victims: Iterable[int]) -> None:
    """Kill processes and see them end; all others stay stopped. Some may not be traced."""
    left = set(victims)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while left:
        ended = {pid for pid in left if start_time(pid) is None}
        while (stop := _next_stop()) is not None:
            if stop in left:
                _request(SYSCALL, stop)
        left -= ended
        time.sleep(0.001)


def _next_stop() -> int | None:
    """Return a traced process that has stopped or ended, None if there is none now."""
    try:
        pid, _status = os.waitpid(-1, WALL | os.WNOHANG)
    except ChildProcessError:
        return None
    return pid or None


def noticed(info: Info) -> str:
    """Return the name of the call that begins, '' if nobody can notice it."""
    if info.op != ENTRY:
        return ""
    if info.number == OPENAT:
        return "openat" if info.arguments[2] & OPENS_TO_WRITE else ""
    if info.number == WAITID:
        return "" if info.arguments[3] & WNOWAIT else "waitid"
    return NOTICED.get(info.number, "")


def fallible(info: Info, pid: int) -> str:
    """Return the name and the error of the call that begins, '' if it does not fail on an exhausted host."""
    if info.op != ENTRY:
        return ""
    if info.number == FCNTL:
        return "fcntl EMFILE" if info.arguments[1] in DUPS else ""
    if info.number == EPOLL_CTL:
        return "epoll_ctl ENOMEM" if info.arguments[1] == EPOLL_CTL_ADD else ""
    if info.number == WRITE:
        with suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{info.arguments[0]}")
            return "write ENOSPC" if target.startswith("/memfd") or "/run/" in target else ""
        return ""
    return " ".join(FALLIBLE.get(info.number, ()))


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    return "?"


def _is_ours(pid: int) -> bool:
    """Whether a process runs Python or `launch`, and not the program of a service."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe").rpartition("/")[2].startswith(("python", "launch", "acceptor"))
    return False
