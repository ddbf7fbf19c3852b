#!/usr/bin/env python3
"""The whole reaper on the loop of this process: how long it is blocked while cgroups run empty as fast as can be.

A script INSERTs a row for each into a real PostgreSQL server, and the accounting keeps one in SQLite, as in the
definition that ships.  Prints one line of JSON for each run: rows, rows a second, and how long nobody else had a
turn at most: by the clock, which counts what the machine does besides, and in CPU time of the loop's thread.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from supervisor.log.handler import LineHandler
from supervisor.log.logger import log
from tests.bench.lua_inserts import Ticker
from tests.postgres import Postgres, postgres
from tests.unit.workers.reaper.ground import Ground, ground
from workers.reaper.options import Options
from workers.reaper.reaper import Reaper
from workers.reaper.reports import start_script

SCRIPT = """
local db = pg:new("{conninfo}")
assert(db:execute("CREATE TABLE released (path text, cpu float8)"))
function cgroup_released(cgroup)
  assert(db:execute("INSERT INTO released VALUES ($1, $2)", {{cgroup.path, cgroup.cpu_total}}))
end
"""

# Makes so many cgroups and, when it is told to, enters one after the other.
WALKER = """
import os, sys
folder, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    os.mkdir(f"{folder}/{number}")
print(flush=True)
sys.stdin.readline()
for number in range(count):
    with open(f"{folder}/{number}/cgroup.procs", "w") as procs:
        procs.write("0")
"""


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds, with few looks, as they cost the loop's time."""
    while not condition():  # noqa: ASYNC110 (the condition is the benchmark's own)
        await asyncio.sleep(0.1)


async def walker(own: Ground, count: int) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-ISc", WALKER, str(own.folder()), str(count), stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"\n"
    return process


async def run(server: Postgres, own: Ground, folder: Path, count: int) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    script = folder / "reaper.lua"
    script.write_text(SCRIPT.format(conninfo=server.conninfo))
    host = await start_script(str(script), loop)
    options = Options(
        scopes=(own.scope,),
        cgroup_root=str(own.root),
        host="bench",
        database=f"sqlite:{folder}/accounting.db",
        spool=f"{folder}/spool",
    )
    reaper = Reaper(loop, options, host)
    reaper.start()
    gc.freeze()  # as the worker does once it has started
    process = await walker(own, count)
    await until(lambda: len(reaper.tree.members()) == count)
    ticker = Ticker()
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(0.5)
    begun = time.monotonic()
    assert process.stdin is not None
    process.stdin.write(b"\n")
    assert await process.wait() == 0
    await until(lambda: reaper.releases.counters.released == count and not reaper.reports.running)
    seconds = time.monotonic() - begun
    assert reaper.accounting is not None
    writer = reaper.accounting
    await until(lambda: writer.kept == count)
    ticking.cancel()
    await reaper.stop()
    host.close()
    gc.unfreeze()
    ((rows,),) = server.execute("SELECT count(*) FROM released")
    server.execute("DROP TABLE released")
    return {
        "count": count,
        "rows": rows,
        "per_s": round(count / seconds),
        "blocked_ms": round(ticker.clock_s * 1000, 1),
        "blocked_cpu_ms": round(ticker.cpu_s * 1000, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    log.addHandler(LineHandler(os.open(os.devnull, os.O_WRONLY)))
    log.setLevel("INFO")
    log.propagate = False
    with postgres(fsync=True) as server:
        for _ in range(arguments.runs):
            with ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reaper-bench-")))
                own = stack.enter_context(ground())
                own.make()
                print(json.dumps(asyncio.run(run(server, own, folder, arguments.count))), flush=True)


if __name__ == "__main__":
    main()
