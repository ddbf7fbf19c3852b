"""What holds for every test."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import supervisor


def pytest_configure() -> None:
    """In the project's own environment it is the installed package that is tested, never the checkout."""
    prefix = Path(sys.prefix)
    if prefix == Path(__file__).parents[1] / ".venv" and prefix not in Path(supervisor.__file__).parents:
        raise pytest.UsageError(f"cannot test the installed package: {supervisor.__file__!r} comes first on the path")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as a shell has it for what runs in the background
    if "MACHINE" not in os.environ:  # there it is not used, and takes seconds to import
        _set_up_hypothesis()


def _set_up_hypothesis() -> None:
    """No database: a test leaves nothing behind.  No deadline: a machine has other work, too."""
    import hypothesis

    hypothesis.settings.register_profile("spawn-supervisor", database=None, deadline=None)
    hypothesis.settings.load_profile("spawn-supervisor")
