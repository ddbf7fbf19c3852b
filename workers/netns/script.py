"""The setup script, run as by `ip netns exec`: inside, with mounts that make `/sys` and `/etc` match.

The mount namespace is private, so its mounts are invisible outside. The task guards the script: it knows all
descendants, whatever they do to escape. The task is a child subreaper, so that each descendant whose parent
has ended becomes its child, whatever its session, environment and namespaces are; no other processes are
below it. Only children are signalled here: their pids are their own until they are reaped.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import prctl

from supervisor.linux.namespaces import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MNT_DETACH,
    MS_BIND,
    MS_REC,
    MS_SLAVE,
    mount,
    setns,
    umount2,
    unshare,
)
from supervisor.linux.signal_mask import unblock_all
from supervisor.log.logger import log
from workers.netns.files import RESOLVER_FOLDER, open_namespace
from workers.netns.plan import SetUpError, read_plan
from workers.netns.remove import MARK, tell_ended

PATIENCE = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0))  # seconds
LONGEST_PAUSE = 0.1  # seconds between two checks: a child may be adopted without a signal
SIGCHLD = {signal.SIGCHLD}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_script(options: dict[str, Any], path: str, run: str, limit: float) -> None:
    """Run the script, with the name of the inner link as its argument. Raises OSError, SetUpError.

    All processes of the script have the mark `run` in their environment. `limit` is in seconds. Its stdout
    and stderr go to the output of the service. If it fails, all of its processes are ended.
    """
    plan = read_plan(options)
    namespace = open_namespace(plan.name)
    if namespace is None:
        raise SetUpError(f"cannot run {path}: there is no network namespace {plan.name!r} any more")
    setns(namespace, CLONE_NEWNET)
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_SLAVE | MS_REC)
    umount2("/sys", MNT_DETACH)
    mount(plan.name, "/sys", "sysfs")
    _bind_files(plan.name)
    variables = {"PATH": PATH, "NETNS": plan.name, "LINK": plan.link, MARK: run}

    def become() -> NoReturn:
        os.dup2(1, 2)
        os.chdir("/")
        os.umask(0o022)
        os.execve(path, [path, plan.inside], variables)  # noqa: S606

    try:
        guard = Guard(become)
    except OSError as error:
        raise SetUpError(f"cannot run {path}: {error.strerror}") from error
    status = guard.wait(limit)
    if status != 0:
        tell_ended(plan.name, guard.end_left())
        raise SetUpError(_how_it_ended(path, status, limit))


def _how_it_ended(path: str, status: int | None, limit: float) -> str:
    if status is None:
        return f"{path} took longer than {limit:g} s"
    if status < 0:
        return f"{path} was killed by {signal.Signals(-status).name.removeprefix('SIG')}"
    return f"{path} exited with status {status}"


def _bind_files(name: str) -> None:
    """Bind the files over those of /etc; a file without a counterpart there is logged and skipped."""
    folder = f"{RESOLVER_FOLDER}/{name}"
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for file in names:
        source, target = f"{folder}/{file}", f"/etc/{file}"
        try:
            mount(source, target, flags=MS_BIND)
        except OSError as error:
            log.warning("netns@%s: cannot bind %s over %s: %s", name, source, target, error.strerror)


class Guard:
    """A child that becomes a program by `become`, and its descendants. Raises OSError if it cannot be executed."""

    def __init__(self, become: Callable[[], NoReturn]) -> None:
        prctl.set_child_subreaper(1)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGCHLD)
        read_end, write_end = os.pipe()
        ourselves = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _be_program(become, ourselves, write_end)
        os.close(write_end)
        with open(read_end, "rb") as pipe:
            number = pipe.read()  # until it is executed
        if number:
            raise OSError(int(number), os.strerror(int(number)))

    def wait(self, limit: float) -> int | None:
        """Return its exit status like `subprocess`; None if it took longer than `limit` seconds and was killed."""
        deadline = time.monotonic() + limit
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == self._pid:
                return os.waitstatus_to_exitcode(status)
            if pid == 0:
                left = deadline - time.monotonic()
                if left <= 0:
                    os.kill(self._pid, signal.SIGKILL)
                    os.waitpid(self._pid, 0)
                    return None
                signal.sigtimedwait(SIGCHLD, left)

    def end_left(self) -> int:
        """Send TERM to the other processes, then KILL to the rest; return how many there were."""
        seen: set[int] = set()
        for signum, patience in PATIENCE:
            deadline = time.monotonic() + patience
            told: set[int] = set()
            while (children := _children()) and time.monotonic() < deadline:
                for pid in children - told:
                    with suppress(PermissionError):  # a process has changed its user, and this one is not root
                        os.kill(pid, signum)
                        os.kill(pid, signal.SIGCONT)  # so that a stopped process handles the signal
                told = children  # pids of ended processes may be reused
                seen |= children
                signal.sigtimedwait(SIGCHLD, LONGEST_PAUSE)
        return len(seen)


def _be_program(become: Callable[[], NoReturn], parent: int, report: int) -> NoReturn:
    prctl.set_pdeathsig(signal.SIGKILL)  # its end would not be noticed
    unblock_all()
    try:
        if os.getppid() == parent:
            become()
    except OSError as error:
        os.write(report, b"%d" % (error.errno or 0))
    finally:
        os._exit(1)


def _children() -> set[int]:
    """Return all living children; none without CONFIG_PROC_CHILDREN in the kernel."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    try:
        with open("/proc/thread-self/children", "rb") as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:
        return set()
