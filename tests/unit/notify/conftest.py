"""A loop for each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator

import pytest

from supervisor.loop.loop import Loop
from tests.unit.waiting import checked_loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    with checked_loop() as loop:
        yield loop


@pytest.fixture
def deepen() -> Iterator[Callable[[], int]]:
    """Makes a file on disk, the caller's, whose path is over 4096 bytes long, so that it has no name in /proc."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as top:

        def deep() -> int:
            folder = os.open(top, os.O_RDONLY)
            for _ in range(18):
                os.mkdir("d" * 250, dir_fd=folder)
                inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
                os.close(folder)
                folder = inner
            try:
                return os.open("file", os.O_CREAT | os.O_RDWR, dir_fd=folder)
            finally:
                os.close(folder)

        yield deep
