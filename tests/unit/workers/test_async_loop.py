"""The loop of workers on asyncio, in a process that is really stopped."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import time

import pytest

from supervisor.loop.loop import FAR
from tests.daemon import process_state
from tests.unit.waiting import child_process, read_until, wait_exit, wait_until
from workers.runtime.async_control import PatientLoop, Ready

LIMIT = 0.5  # seconds for what the child waits for


async def _wait_for_input(fd: int, ready: int) -> None:
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    loop.add_reader(fd, heard.set)
    os.write(ready, b"r")
    await asyncio.wait_for(heard.wait(), LIMIT)


def test_input_that_came_during_a_stop_is_in_time() -> None:
    """The wait is interrupted by the stop, and its time is over when it goes on."""
    read_end, write_end = os.pipe()
    ready_read, ready_write = os.pipe()

    def child() -> None:
        with asyncio.Runner(loop_factory=PatientLoop) as runner:
            runner.run(_wait_for_input(read_end, ready_write))

    try:
        with child_process(child) as pid:
            read_until(ready_read, lambda data: data)
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: process_state(pid) == "T")
            end = time.monotonic() + LIMIT + 2 * FAR  # the time itself is what is tested
            wait_until(lambda: time.monotonic() > end)
            os.write(write_end, b"x")
            os.kill(pid, signal.SIGCONT)
            assert wait_exit(pid) == 0
    finally:
        for fd in (read_end, write_end, ready_read, ready_write):
            os.close(fd)


def test_its_time_stands_still_in_a_stop_and_its_timers_ring_later() -> None:
    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, PatientLoop)
        before = loop.time()
        loop.grant(100.0)
        assert loop.time() < before
        start = time.monotonic()
        runner.run(asyncio.sleep(0.02))
        assert time.monotonic() - start >= 0.02


def test_a_turn_that_does_not_wait_looks_for_input_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float | None] = []
    select = selectors.EpollSelector.select

    def counted(selector: selectors.EpollSelector, timeout: float | None = None) -> Ready:
        looks.append(timeout)
        return select(selector, timeout)

    async def turns(number: int) -> None:
        looks.clear()
        for _ in range(number):
            await asyncio.sleep(0)

    monkeypatch.setattr(selectors.EpollSelector, "select", counted)
    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        runner.run(turns(100))
        assert looks[:100] == [0] * 100
        assert len(looks) < 150
