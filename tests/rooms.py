"""Run the tests of each folder in a process of its own, forked from one that has loaded pytest.

    python -P tests/rooms.py FOLDER ARGUMENT...    with more arguments for pytest

A fork copies the page tables of the process, and thousands of tests fork.  In a process that had collected the tests of
all folders, forks would take longer than everything else.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import hypothesis.strategies  # noqa: F401 - for all children at once, as the others
import pytest
import pytest_timeout  # type: ignore[import-untyped]  # noqa: F401
import xdist.plugin  # type: ignore[import-untyped]  # noqa: F401

QUIET = ["--no-header", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]


def rooms(folder: Path) -> list[list[str]]:
    """Return the files of tests below a folder, those of each folder together."""
    found: dict[Path, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        found.setdefault(path.parent, []).append(str(path))
    return [found[parent] for parent in sorted(found)]


def run_room(files: list[str], arguments: list[str]) -> int:
    """Run tests in a child, and return the exit status of pytest; negative for the signal that has killed it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        sys.exit(pytest.main([*QUIET, *files, *arguments]))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder: str, *arguments: str) -> int:
    """Return an exit status of pytest: that of the last room that has failed, or that no test was chosen in any."""
    gc.freeze()
    statuses = {run_room(files, list(arguments)) for files in rooms(Path(folder))}
    failures = statuses - {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    return max(map(abs, failures), default=min(statuses))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
