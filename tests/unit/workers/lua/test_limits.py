"""No descriptors left: what cannot be had is a value or an error, and there is no harm beyond that."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.postgres import Postgres
from tests.unit.workers.lua.scripts import complete, hosted, wait_for
from workers.lua.released import Released


@contextmanager
def no_descriptors() -> Iterator[None]:
    """No new one can be had; those that are open stay."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_sockets_and_parents(tmp_path: Path) -> None:
    script = """
function cgroup_released(cgroup)
  print(socket:connect("/run/x"))
  print(control_client:new("@x"))
  print(pcall(function() return cgroup.parent end))
  print(cgroup.xattr.account, cgroup.path)
end
"""
    fd = os.open(tmp_path, os.O_PATH)

    async def run() -> None:
        async with hosted(script) as kept:
            with no_descriptors():
                assert await kept.host.call("cgroup_released", Released("/a/b", fd))
            assert kept.printed == [
                "nil\tcannot connect to /run/x: Too many open files",
                "nil\tcannot connect to @x: Too many open files",
                "false\tscript:5: cannot open the parent of /a/b: Too many open files",
                "nil\t/a/b",
            ]

    complete(run())
    os.close(fd)


def test_the_database_is_connected_to_once_there_are_some(server: Postgres) -> None:
    # psycopg is imported with the first connection
    script = f"""
assert(pg:new([[{server.conninfo}]]):execute("SELECT 1"))
function reload() print(pg:new([[{server.conninfo}]]):execute("SELECT 1 AS x"):fetch().x) end
"""

    async def run() -> None:
        async with hosted(script) as kept:
            with no_descriptors():
                call = kept.host.call("reload")
                await wait_for(lambda: kept.others)
                assert "cannot connect" in kept.others[0]
            assert await call
            assert kept.printed[-1] == "1"

    complete(run())
