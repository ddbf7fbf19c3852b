"""Cgroups of a test's own, below the mount point of cgroup2 of this machine."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from supervisor.places import cgroup2_mounts
from supervisor.process.cgroup import Leaf, Subtree

WAIT_S = 10.0


def mount_point() -> str:
    """Where cgroup2 can be written to; a test without is skipped."""
    for point in cgroup2_mounts():
        if os.access(f"{point}/cgroup.procs", os.W_OK):
            return point
    pytest.skip("needs a cgroup2 file system to make cgroups in")


@contextmanager
def subtree(suffix: str = "") -> Iterator[Subtree]:
    """A fresh one; all in it is killed and removed in the end."""
    path = f"{mount_point()}/spawnd-test-{os.getpid()}-{uuid.uuid4().hex[:8]}{suffix}"
    os.mkdir(path)
    whole = Leaf(Subtree(path), path)
    try:
        yield Subtree(path)
    finally:
        whole.kill()
        wait_until(lambda: not whole.is_populated())
        whole.remove()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.002)
