"""A process that another spawnd has started, as it is found."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from supervisor.process.pids import start_time
from supervisor.process.run import Run
from supervisor.process.survivor import find_survivor
from tests.unit.waiting import child_process, wait_readable


@contextmanager
def survivor(prepare: Callable[[], object] = lambda: None) -> Iterator[Run]:
    """A process that has done what it was to do and sleeps, as it is found."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)

    def live() -> None:
        prepare()
        os.write(write_end, b"!")
        while True:
            signal.pause()

    try:
        with child_process(live) as pid:
            wait_readable(read_end)
            run = find_survivor(pid, start_time(pid))
            assert run is not None
            try:
                yield run
            finally:
                run.close()
    finally:
        os.close(read_end)
        os.close(write_end)
