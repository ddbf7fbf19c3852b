"""Real cgroups for tests of what scripts read of them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def cgroup_root() -> Path | None:
    """Where cgroup v2 is mounted, unified or hybrid."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


@contextmanager
def cgroup_chain(*names: str) -> Iterator[Path]:
    """The innermost of new cgroups, each in the one before, below one with an own name; all are gone in the end."""
    root = cgroup_root()
    if root is None or not os.access(root, os.W_OK):
        pytest.skip("no cgroup v2 that can be written")
    path = root / f"lua-{uuid.uuid4().hex}"
    chain = [path, *(path := path / name for name in names)]
    try:
        path.mkdir(parents=True)
        yield path
    finally:
        for each in reversed(chain):
            with suppress(FileNotFoundError):
                each.rmdir()
