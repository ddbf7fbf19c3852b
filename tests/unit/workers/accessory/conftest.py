from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import prctl
import pytest

from tests.daemon import children
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import checked_loop, wait_until
from tests.unit.workers.accessory.worker import Worker
from tests.unit.workers.spawnd import FakeSpawnd

StartWorker = Callable[..., Worker]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a worker with options; children that it has left come to this process, and end with the test."""
    before, had = open_numbers(), set(children(os.getpid()))
    was_subreaper = prctl.get_child_subreaper()
    prctl.set_child_subreaper(1)
    with ExitStack() as stack:
        loop = stack.enter_context(checked_loop())
        stack.callback(lambda: _end(set(children(os.getpid())) - had))

        def start(environment: dict[str, str] | None = None, **options: Any) -> Worker:
            spawnd = FakeSpawnd(loop, tmp_path / f"notify-{len(list(tmp_path.iterdir()))}")
            stack.callback(spawnd.close)
            worker = Worker(spawnd, options)
            stack.callback(worker.close)
            worker.start(**(environment or {}))
            return worker

        yield start
    prctl.set_child_subreaper(was_subreaper)
    wait_until(lambda: open_numbers() == before)


def _end(pids: Iterable[int]) -> None:
    """Kill and reap them: inits, holders of namespaces, children that take what is in a connection's queue."""
    for pid in pids:
        with suppress(ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
