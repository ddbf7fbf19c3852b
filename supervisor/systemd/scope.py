"""The transient scope for services where systemd is process 1: systemd.scope(5).

spawnd's own unit is unsuitable: once controllers are enabled below its cgroup, systemd cannot start a new
main process there. A scope beside it outlives spawnd, with all limits in it. The scope is delegated, so
systemd changes nothing below it. systemd removes a scope as soon as it is empty, so a process that only
sleeps, the holder, stays in its own leaf.

`systemd-run` makes the scope. It uses systemd's private socket, so that no message bus has to run, and waits
until the scope exists. Its process then becomes the holder.

The scope is found or made before the first service starts, and kept while there are services. spawnd never
waits for systemd to make it.
"""

from __future__ import annotations

import os
import select
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from supervisor.errors import StepError
from supervisor.linux.descriptors import close_range
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop, Timer
from supervisor.places import cgroup2_mounts
from supervisor.process.cgroup import (
    SYSTEMD_RUNS,
    Leaf,
    Subtree,
    cgroup_of,
    folder_of,
    is_delegated,
    kill_members,
    own_cgroup,
    use_subtree,
    write_once,
)
from supervisor.process.failure import step
from supervisor.process.fork import default_signals, fork

NAME = "spawnd-services"
UNIT = "spawnd.service"  # its name as shipped
SYSTEM_SLICE = "system.slice"
HOLDER_LEAF = "_keeper"  # its name since the first version; no leaf of a service begins with a single `_`
SYSTEMD_RUN = "/usr/bin/systemd-run"
SLEEP = "/bin/sleep"
# systemd-run reports errors on stderr; closing stderr reports the holder
KEEP = ("/bin/sh", "-c", f"exec {SLEEP} infinity 2>/dev/null")
LAST_FD = 2**32 - 1

MAX_COMPLAINT = 4096  # bytes
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
Done = Callable[[int | None, str], None]
TIME_LIMIT = 10.0  # seconds to get the scope; a busy systemd takes less
AGAIN_AFTER = 0.1  # seconds; a scope of the same name may be about to disappear
GONE_WITHIN = 5.0  # seconds for systemd to remove an empty scope
LOOK_AGAIN = 0.01  # seconds
Opened = Callable[[Subtree | None], None]


def can_have_scope() -> bool:
    """Whether systemd is process 1 and would obey this process, and a cgroup2 is visible."""
    return os.geteuid() == 0 and os.path.isdir(SYSTEMD_RUNS) and own_cgroup() is not None


def scope_name(folder: str, system_folder: str) -> str:
    """Return the scope of the spawnd with this run-time folder; the system's spawnd has the plain name."""
    if folder == system_folder:
        return f"{NAME}.scope"
    return f"{NAME}-{zlib.crc32(os.fsencode(folder)):08x}.scope"


def find_scope(name: str) -> str | None:
    """Return the folder of the scope `name`, in any slice.

    None if it does not exist or is empty: systemd is about to remove it then.
    """
    for point in cgroup2_mounts():
        for folder in _slices(point):
            path = f"{folder}/{name}"
            if is_delegated(path) and Leaf(Subtree(path), path).is_populated():
                return path
    return None


def _slices(folder: str) -> Iterator[str]:
    yield folder
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".slice"):
                yield from _slices(entry.path)


def make_scope_command(name: str, folder: str) -> tuple[str, ...]:
    """Return the command that makes the scope and stays in it as its holder; `folder` is the run-time folder.

    Without `Before=`, systemd would end services at a shutdown of the host while spawnd stops them in order.
    A scope has DefaultTasksMax= unless set otherwise.
    """
    slice_name, unit = place_of(cgroup_of("self") or "")
    before = dict.fromkeys((UNIT, unit or UNIT))
    properties = ("Delegate=yes", "TasksMax=infinity", f"Before={' '.join(before)}")
    return (
        SYSTEMD_RUN,
        "--scope",
        "--quiet",
        "--collect",
        f"--unit={name}",
        f"--slice={slice_name}",
        f"--description=Services of spawnd, {folder}",
        *(f"--property={each}" for each in properties),
        "--",
        *KEEP,
    )


def place_of(cgroup: str) -> tuple[str, str]:
    """Return slice and service of the unit for a process in `cgroup`; ('system.slice', '') without such a unit."""
    *slices, unit = cgroup.strip("/").split("/")
    if not unit.endswith(".service") or not all(each.endswith(".slice") for each in slices):
        return SYSTEM_SLICE, ""  # in a session, or in a user's own systemd
    return (slices[-1] if slices else "-.slice"), unit


def holder_of(path: str) -> int | None:
    """Return the pid of the holder of the scope in folder `path`, None without one."""
    with suppress(OSError), open(f"{path}/{HOLDER_LEAF}/cgroup.procs", encoding="ascii") as procs:
        return next((int(line) for line in procs), None)
    return None


def move_holder(path: str, pid: int) -> None:
    """Move the holder to its leaf, as inner cgroups must have no processes. Raises StepError."""
    leaf = f"{path}/{HOLDER_LEAF}"
    with step("make cgroup", leaf), suppress(FileExistsError):
        os.mkdir(leaf)
    with step("move the holder to", leaf):
        write_once(f"{leaf}/cgroup.procs", str(pid))


def be_holder(path: str) -> None:
    """Become the holder of a scope without one. To be called in a forked child; never returns."""
    os.setsid()
    default_signals()
    move_holder(path, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    close_range(3, LAST_FD)
    os.execve(SLEEP, ("sleep", "infinity"), {})  # noqa: S606  # no shell is the point


class ScopeRequest:
    """A run of `command`, which becomes the holder of the scope `name`.

    Calls `done` once, from the loop: with the holder's pid, or with None and the problem. The process is held
    by a pidfd and is no registered child, because it outlives spawnd and the scope handles its end. Owns the
    pidfd and its end of the pipe. Raises OSError if no process can be forked.
    """

    def __init__(self, loop: Loop, name: str, command: tuple[str, ...], done: Done) -> None:
        self._loop = loop
        self._name = name
        self._done: Done | None = done
        self._complaint = bytearray()
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(read_end, False)
            self._pid = fork(lambda: _execute(command, write_end), [write_end])
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._read_end = read_end
        self._pidfd = os.pidfd_open(self._pid)
        loop.watch(self._pidfd, select.EPOLLIN, lambda _events: self._ended())
        loop.watch(self._read_end, select.EPOLLIN, lambda _events: self._read())

    def cancel(self) -> None:
        """Kill the process, whatever it executes by now: the scope is not needed any more."""
        if self._done is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._close()

    def _read(self) -> None:
        """Collect its errors; they end when it becomes the holder or ends."""
        try:
            while data := os.read(self._read_end, MAX_COMPLAINT):
                self._complaint += data[: MAX_COMPLAINT - len(self._complaint)]
        except BlockingIOError:
            return
        self._loop.unwatch(self._read_end)
        if (cgroup_of(self._pid) or "").endswith(f"/{self._name}"):
            self._finish(self._pid, "")

    def _ended(self) -> None:
        self._read()
        if self._done is not None:
            lines = self._complaint.decode(errors="backslashreplace").splitlines()
            self._finish(None, "; ".join(lines) or "it ended without a word")

    def _finish(self, pid: int | None, problem: str) -> None:
        done = self._done
        self._close()
        if done is not None:
            done(pid, problem)

    def _close(self) -> None:
        self._done = None
        for fd in (self._read_end, self._pidfd):
            self._loop.unwatch(fd)
            os.close(fd)


def _execute(command: tuple[str, ...], write_end: int) -> None:
    os.setsid()  # only spawnd handles INT from the terminal
    default_signals()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(write_end, 2)
    close_range(3, LAST_FD)
    try:
        os.execve(command[0], command, ENVIRONMENT)  # noqa: S606  # no shell is the point
    except OSError as error:
        os.write(2, f"cannot execute {command[0]!r}: {error.strerror}".encode())
    os._exit(1)


class Scope:
    """The scope `name` of the spawnd with the run-time folder `folder`.

    A pidfd watches its holder, which may be the child of an earlier spawnd. A killed holder is replaced. A
    lost scope is made again; services that start meanwhile fail and back off. Owns the pidfd.
    """

    def __init__(self, loop: Loop, name: str, folder: str) -> None:
        self._loop = loop
        self._name = name
        self._folder = folder
        self._subtree: Subtree | None = None
        self._request: ScopeRequest | None = None
        self._timer: Timer | None = None
        self._pidfd = -1
        self._deadline = 0.0
        self._problem = ""
        self._kept = True
        self._is_new = False

    def open(self, opened: Opened) -> None:
        """Call `opened`, at once or from the loop, with the subtree, or None if it cannot be had."""
        self._begin(opened)

    def take_over(self, subtree: Subtree) -> None:
        """Take over the scope that this process opened before its exec."""
        self._subtree = subtree
        self._keep()

    def release(self) -> None:
        """Replace nothing any more: all services are about to stop."""
        self._kept = False

    def close(self, done: Callable[[], None]) -> None:
        """Kill all processes in the scope, also the holder; call `done` when systemd has removed it, or will not."""
        self._stop_waiting()
        if self._subtree is None:
            done()
            return
        path = self._subtree.path
        self._kill(path)
        self._subtree = None
        self._await_end(path, self._loop.clock() + GONE_WITHIN, done)

    def abandon(self) -> None:
        """End a scope that was just made, as there will be no services. A scope that existed before stays."""
        self._stop_waiting()
        if self._is_new and self._subtree is not None:
            self._kill(self._subtree.path)

    def _kill(self, path: str) -> None:
        try:
            kill_members(path)
        except StepError as error:
            log.warning("%s: %s", self._name, error)

    def _stop_waiting(self) -> None:
        self._kept = False
        if self._timer is not None:
            self._timer.cancel()
        if self._request is not None:
            self._request.cancel()
            self._request = None
        self._unwatch()

    # opening the scope

    def _begin(self, opened: Opened) -> None:
        self._problem = ""
        self._deadline = self._loop.clock() + TIME_LIMIT
        self._get(opened)

    def _get(self, opened: Opened) -> None:
        """Use the existing scope, or have it made."""
        self._timer = None
        try:
            path = find_scope(self._name)
            if path is None:
                self._request = ScopeRequest(
                    self._loop, self._name, make_scope_command(self._name, self._folder), partial(self._made, opened)
                )
                self._timer = self._loop.call_at(self._deadline, partial(self._too_late, opened))
                return
            self._use(path, holder_of(path) or fork(partial(be_holder, path), []))
        except (StepError, OSError) as error:
            self._failed(opened, str(error))
        else:
            opened(self._subtree)

    def _made(self, opened: Opened, pid: int | None, problem: str) -> None:
        """Handle the answer to a request."""
        self._request = None
        if self._timer is not None:
            self._timer.cancel()
        path = folder_of(cgroup_of(pid) or "") if pid is not None else None
        if pid is None or path is None:
            self._failed(opened, problem or "its cgroup is out of sight")
            return
        try:
            move_holder(path, pid)
            self._use(path, pid)
        except (StepError, OSError) as error:
            os.kill(pid, signal.SIGKILL)
            self._failed(opened, str(error))
            return
        self._is_new = True
        opened(self._subtree)

    def _use(self, path: str, holder: int) -> None:
        self._pidfd = os.pidfd_open(holder)
        self._loop.watch(self._pidfd, select.EPOLLIN, lambda _events: self._holder_ended())
        if self._subtree is None:
            self._subtree = use_subtree(path)
        else:
            self._subtree.path = use_subtree(path).path
            self._subtree.lost = False

    def _failed(self, opened: Opened, problem: str) -> None:
        """Try again while there is time: an obstacle may be about to disappear."""
        self._problem = problem
        if self._loop.clock() + AGAIN_AFTER < self._deadline:
            log.debug("%s: %s; trying again", self._name, problem)
            self._timer = self._loop.call_later(AGAIN_AFTER, partial(self._get, opened))
        else:
            log.error("cannot get %s: %s", self._name, problem)
            opened(None)

    def _too_late(self, opened: Opened) -> None:
        if self._request is not None:
            self._request.cancel()
            self._request = None
        self._failed(opened, self._problem or f"systemd did not make it within {TIME_LIMIT:g} s")

    # keeping the scope

    def _holder_ended(self) -> None:
        self._unwatch()
        if self._kept and self._subtree is not None:
            self._subtree.lost = True
            notice("%s: its holder has ended; another one replaces it", self._name)
            self._timer = self._loop.call_later(AGAIN_AFTER, self._keep)

    def _keep(self) -> None:
        self._timer = None
        if self._kept:
            self._begin(self._kept_again)

    def _kept_again(self, subtree: Subtree | None) -> None:
        if subtree is None and self._kept:
            self._timer = self._loop.call_later(TIME_LIMIT, self._keep)

    def _unwatch(self) -> None:
        if self._pidfd >= 0:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _await_end(self, path: str, deadline: float, done: Callable[[], None]) -> None:
        if not os.path.exists(path):
            done()
        elif self._loop.clock() >= deadline:
            log.warning("%s: still there %g s after its end", self._name, GONE_WITHIN)
            done()
        else:
            self._loop.call_later(LOOK_AGAIN, partial(self._await_end, path, deadline, done))
