"""Fixtures for every test."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest

import supervisor

PYTHON_IGNORES = {signal.SIGPIPE, signal.SIGXFSZ}  # subprocess restores them in its children


def pytest_configure() -> None:
    """In the project's own environment it is the installed package that is tested, never the checkout."""
    prefix = Path(sys.prefix)
    if prefix == Path(__file__).parents[1] / ".venv" and prefix not in Path(supervisor.__file__).parents:
        raise pytest.UsageError(f"cannot test the installed package: {supervisor.__file__!r} comes first on the path")
    hear_signals()
    if "MACHINE" not in os.environ:  # there it is not used, and takes seconds to import
        _set_up_hypothesis()


def hear_signals() -> None:
    """Have the programs that tests start begin with no signal ignored or blocked, however this process was started.

    nohup(1) and shells that run a command in the background ignore some, and an execve keeps that.  The run of the
    tests itself is ended by none of these, as before.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for signum in signal.valid_signals() - PYTHON_IGNORES:
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else _go_on)


def _go_on(_signum: int, _frame: object) -> None:
    """Handle a signal by doing nothing: an execve resets handlers."""


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new folder for a test.

    It takes the place of a fixture of pytest, which lists the folders of all earlier tests to find the next number.
    """
    name = re.sub(r"\W", "_", request.node.name, flags=re.ASCII)[:30]
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=tmp_path_factory.getbasetemp()))


def pytest_collection_finish() -> None:
    """Keep the thousands of collected tests out of each garbage collection, here and in forked children."""
    gc.collect()
    gc.freeze()


def _set_up_hypothesis() -> None:
    """No database: a test leaves nothing behind.  No deadline: a machine has other work, too."""
    import hypothesis

    hypothesis.settings.register_profile("spawn-supervisor", database=None, deadline=None)
    hypothesis.settings.load_profile("spawn-supervisor")
