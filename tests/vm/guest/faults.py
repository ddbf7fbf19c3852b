"""Checks that are none: what tests of the machines themselves have a machine do."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest


def test_passes() -> None:
    """And what it says arrives."""
    print("out: \N{SNOWMAN}")
    print("err", file=sys.stderr)


def test_fails() -> None:
    assert 1 + 1 == 3


@pytest.mark.timeout(0)
def test_hangs() -> None:
    while True:
        signal.pause()


def test_panics() -> None:
    Path("/proc/sysrq-trigger").write_text("c")
    while True:
        signal.pause()


@pytest.mark.boot(2)
def test_reboots_before() -> None:
    """Never runs where a machine has failed in its first boot."""
