#!/usr/bin/env python3
"""Handlers of the Lua host that insert one row each into a real PostgreSQL server.

Prints one line of JSON for each run: rows, rows a second, and how long the loop was blocked at
most: by the clock, which counts what the machine does besides, and in CPU time of the loop's thread.
With `--commit off` the server does not wait for its disk.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import time

from tests.postgres import Postgres, postgres
from workers.lua.host import LuaHost
from workers.lua.released import Released

SCRIPT = """
local db = pg:new([[{conninfo} options='-c synchronous_commit={commit}']])
assert(db:execute("CREATE TABLE usage (path text, cpu float8, peak bigint)"))
function cgroup_released(cgroup)
  assert(db:execute("INSERT INTO usage VALUES ($1, $2, $3)", {{ cgroup.path, cgroup.cpu_total, cgroup.memory_peak }}))
end
"""
RELEASED = Released("/system.slice/x.scope/a", -1, counted={"cpu_total": 1.5, "memory_peak": 91226112})
TICK = 0.001  # seconds


class Ticker:
    """Wakes up all the time and notes how long it was kept from it."""

    def __init__(self) -> None:
        self.clock_s = 0.0
        self.cpu_s = 0.0

    async def run(self) -> None:
        while True:
            clock, cpu = time.monotonic(), time.thread_time()
            await asyncio.sleep(TICK)
            self.clock_s = max(self.clock_s, time.monotonic() - clock - TICK)
            self.cpu_s = max(self.cpu_s, time.thread_time() - cpu)


async def run(server: Postgres, rows: int, at_a_time: int, commit: str) -> dict[str, object]:
    def log(level: int, text: str) -> None:
        if level >= logging.WARNING:
            raise AssertionError(text)

    script = SCRIPT.format(conninfo=server.conninfo, commit=commit)
    host = LuaHost(script.encode(), log, asyncio.get_running_loop())
    await host.execute()
    gc.freeze()  # as a worker does once it has started
    ticker = Ticker()
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(0.1)
    begin = time.monotonic()
    left = rows
    all_ended = asyncio.get_running_loop().create_future()

    def ended(call: asyncio.Future[bool]) -> None:
        nonlocal left
        left -= 1
        assert call.result()
        if left == 0:
            all_ended.set_result(None)

    for number in range(rows):
        host.call("cgroup_released", RELEASED).add_done_callback(ended)
        if number % at_a_time == 0:
            await asyncio.sleep(0)
    await all_ended
    seconds = time.monotonic() - begin
    ticking.cancel()
    gc.unfreeze()
    host.close()
    assert server.execute("SELECT count(*) FROM usage") == [(rows,)]
    server.execute("DROP TABLE usage")
    return {
        "rows": rows,
        "commit": commit,
        "per_s": round(rows / seconds),
        "blocked_ms": round(ticker.clock_s * 1000, 1),
        "blocked_cpu_ms": round(ticker.cpu_s * 1000, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--at-a-time", type=int, default=50, help="calls between two rounds of the loop")
    parser.add_argument("--commit", choices=["on", "off"], default="on")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    with postgres(fsync=True) as server:
        for _ in range(args.runs):
            print(json.dumps(asyncio.run(run(server, args.rows, args.at_a_time, args.commit))), flush=True)


if __name__ == "__main__":
    main()
