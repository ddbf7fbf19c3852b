#!/usr/bin/env python3
"""The log worker in a flood, and with one line at a time; beside it one whose reads are its own, without a time limit.

Prints one line of JSON: lines a second of one service that floods and microseconds from a lone line to the log, each as
the median of all rounds, and the median of the ratios, since both kinds take turns.  `--size` is that of a line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable
from contextlib import closing, nullcontext
from typing import Any
from unittest.mock import patch

from supervisor.log.output import WorkerOutputs
from supervisor.loop.loop import Loop
from tests.unit.waiting import child_process, wait_readable
from tests.unit.workers.log_worker import LogWorker
from workers.log import stream
from workers.log.main import REST

LONE = 300  # lines in a round


class DirectRead:
    """A read that waits for whoever keeps the pipe, in the place of a `PipeCall`."""

    most = 1 << 16  # bytes

    def __init__(self, fd: int, size: int, _patience: int) -> None:
        try:
            self._data: bytes | None = os.read(fd, min(size, self.most))
        except BlockingIOError:
            self._data = None

    def has_ended(self, _patience: int) -> bool:
        return True

    def result(self) -> bytes:
        if self._data is None:
            raise BlockingIOError
        return self._data


def read_for(fd: int, seconds: float) -> tuple[int, float]:
    """Lines that come in so many seconds, from the first piece on, and how long that was."""
    wait_readable(fd)
    os.read(fd, 1 << 16)
    begun = now = time.monotonic()
    lines = 0
    while now - begun < seconds:
        lines += os.read(fd, 1 << 16).count(b"\n")
        now = time.monotonic()
    return lines, now - begun


def flood(worker: LogWorker, write_end: int, size: int, seconds: float) -> float:
    """Lines a second."""
    block = (b"x" * (size - 1) + b"\n") * max(1, 4096 // size)

    def write() -> None:
        while True:
            os.write(write_end, block)

    with child_process(write):
        lines, taken = read_for(worker.log_fd, seconds)
    return lines / taken


def lone(worker: LogWorker, write_end: int, size: int) -> float:
    """Microseconds from a line to the log, the median."""
    times = []
    for number in range(LONE):
        line = b"%0*d\n" % (size - 1, number)
        time.sleep(2 * REST)  # as a line by itself comes
        begun = time.perf_counter()
        os.write(write_end, line)
        while not os.read(worker.log_fd, 1 << 16).endswith(line):
            pass
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def measure_round(size: int, seconds: float, is_direct: bool) -> tuple[float, float]:
    loop = Loop(on_error=lambda error: print(error, flush=True))
    outputs = WorkerOutputs(loop, close_all)
    with patch.object(stream, "start_read", DirectRead) if is_direct else nullcontext():
        worker = LogWorker(outputs)  # a fork, which keeps it
    with closing(worker):
        microseconds = lone(worker, outputs.stream("one"), size)
        rate = flood(worker, outputs.stream("noisy"), size, seconds)
    for name in ("one", "noisy"):
        outputs.drop(name)
    loop.close()
    return rate, microseconds


def measure(size: int, seconds: float, rounds: int) -> dict[str, Any]:
    pairs = [(measure_round(size, seconds, False), measure_round(size, seconds, True)) for _ in range(rounds)]
    rates, times = [[(ours[at], direct[at]) for ours, direct in pairs] for at in (0, 1)]
    return {
        "size": size,
        "lines_per_s": _compared(rates),
        "lone_us": _compared(times),
    }


def _compared(pairs: list[tuple[float, float]]) -> dict[str, float]:
    return {
        "ours": round(statistics.median(ours for ours, _ in pairs)),
        "direct": round(statistics.median(direct for _, direct in pairs)),
        "ratio": round(statistics.median(ours / direct for ours, direct in pairs), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--most", type=int, default=DirectRead.most, help="bytes of a read without a limit")
    options = parser.parse_args()
    DirectRead.most = options.most
    print(json.dumps(measure(options.size, options.seconds, options.rounds)))


if __name__ == "__main__":
    main()
