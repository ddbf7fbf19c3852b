#!/usr/bin/env python3
"""A million calls of a handler in a row: what each costs, and whether memory stays flat.

Prints one line of JSON: microseconds of CPU for a call, and the process's memory after each tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time

from tests.bench.measure import pss_kb
from workers.lua.host import LuaHost
from workers.lua.released import Released

SCRIPT = b"""
local total = {}
function cgroup_released(cgroup)
  local account = cgroup.xattr.account or cgroup.parent.xattr.account or "nobody"
  local usage = { path = cgroup.path, cpu = cgroup.cpu_total, peak = cgroup.memory_peak, began = cgroup.btime }
  total[account] = (total[account] or 0) + usage.cpu
  local inner = coroutine.wrap(function() coroutine.yield(usage.path) end)
  inner()
  if usage.peak % 10 == 0 then pcall(error, "once in a while") end
end
"""


async def run(calls: int) -> dict[str, object]:
    host = LuaHost(SCRIPT, lambda _level, _text: None, asyncio.get_running_loop())
    await host.execute()
    fd = os.open("/", os.O_PATH)
    memory = [pss_kb(os.getpid())]
    begin = time.process_time()
    for _ in range(10):
        for number in range(calls // 10):
            released = Released(
                "/system.slice/x.scope/a", fd, 1764110000.5, counted={"cpu_total": 1.5, "memory_peak": number}
            )
            assert await host.call("cgroup_released", released)
        memory.append(pss_kb(os.getpid()))
    cpu_s = time.process_time() - begin
    host.close()
    return {"calls": calls, "cpu_us": round(cpu_s / calls * 1e6, 1), "memory_kb": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    print(json.dumps(asyncio.run(run(parser.parse_args().calls))))


if __name__ == "__main__":
    main()
