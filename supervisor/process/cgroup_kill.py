"""Killing every process of a cgroup and of those below it, none spared for being forked meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator

from supervisor.process.scheduling import write_once
from supervisor.process.step import step

FREEZE_S = 1.0  # for all to stop; a process in an uninterruptible sleep may not, and forks nothing either
FREEZE_POLL_S = 0.001
GONE = frozenset({errno.ENOENT, errno.ENODEV})  # no such folder; removed while a file of it was open


def kill_all(path: str) -> None:
    """KILL to every process in the cgroup `path` and below.

    Returns before they are dead.  A cgroup that is gone has none.  Raises StepError.
    """
    kill = f"{path}/cgroup.kill"
    if not os.path.exists(kill):
        freeze_and_kill(path)
        return
    with step("write", kill), _unless_gone():
        write_once(kill, "1")


def freeze_and_kill(path: str) -> None:
    """`kill_all` before Linux 5.14, which brought `cgroup.kill`.

    What is frozen does not fork, so the list of processes is complete; KILL ends it all the same.
    """
    with step("kill the cgroup", path), _unless_gone():
        write_once(f"{path}/cgroup.freeze", "1")
        try:
            _wait_frozen(path)
            for pid in _processes(path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        finally:
            write_once(f"{path}/cgroup.freeze", "0")


def _wait_frozen(path: str) -> None:
    deadline = time.monotonic() + FREEZE_S
    while time.monotonic() < deadline:
        with open(f"{path}/cgroup.events", encoding="ascii") as events:
            if "frozen 1" in events.read():
                return
        time.sleep(FREEZE_POLL_S)


def _processes(path: str) -> Iterator[int]:
    for folder, _, _ in os.walk(path):
        with open(f"{folder}/cgroup.procs", encoding="ascii") as procs:
            yield from map(int, procs)


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in GONE:
            raise
