"""The scripts of conf/examples/reaper, each with its real counterpart: database, control socket, collector."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from nacl.public import PrivateKey, SealedBox

from tests.postgres import Database, Postgres
from tests.unit.workers.lua.cgroups import cgroup_chain
from tests.unit.workers.lua.scripts import Hosted, complete, wait_for
from workers.lua.host import LuaHost
from workers.lua.released import Released
from workers.lua.state import ScriptError

EXAMPLES = Path(__file__).parents[4] / "conf" / "examples" / "reaper"
# what the head of each file says that an operator has to make
ACCOUNTING = """
CREATE SCHEMA accounting;
CREATE TABLE accounting.usage (
  account text NOT NULL, path text NOT NULL, began timestamptz, ended timestamptz NOT NULL DEFAULT now(),
  cpu_s double precision, memory_peak bigint, processes bigint, oom bigint);
"""
LOCKOUT = "CREATE TABLE lockout (account text PRIMARY KEY, told timestamptz);"


@asynccontextmanager
async def example(name: str) -> AsyncIterator[Hosted]:
    host = LuaHost(EXAMPLES / name, lambda level, text: kept.log(level, text), asyncio.get_running_loop())
    kept = Hosted(host)
    try:
        await host.execute()
        yield kept
    finally:
        host.close()
    assert kept.errors == []


@pytest.fixture
def database(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database of the examples, found through libpq's environment as on a host."""
    monkeypatch.setenv("PGHOST", str(server.folder))
    monkeypatch.setenv("PGUSER", "tester")
    server.execute("CREATE DATABASE accounting")
    yield server.of_database("accounting")
    server.execute("DROP DATABASE accounting WITH (FORCE)")


@pytest.mark.parametrize("name", ["accounting.lua", "lockout.lua"])
def test_the_tables_are_those_of_the_files(name: str) -> None:
    wanted = {"accounting.lua": ACCOUNTING, "lockout.lua": LOCKOUT}[name]
    text = (EXAMPLES / name).read_text().replace("--", "")
    assert " ".join(wanted.split()) in " ".join(text.split())


def test_accounting(database: Database) -> None:
    database.execute(ACCOUNTING)

    async def run() -> None:
        with cgroup_chain("inner") as path:
            os.setxattr(path.parent, "user.account", b"alice")
            async with example("accounting.lua") as kept:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                path.rmdir()
                used = {"cpu_total": 1.5, "memory_peak": 87, "pids_peak": 9}
                calls = [
                    kept.host.call("cgroup_released", released)
                    for released in (
                        Released(f"/{path.parent.name}/{path.name}", fd, 1764110000.5, counted=used),
                        Released(f"/{path.parent.name}/unknown", fd),
                    )
                ]
                assert all(await asyncio.gather(*calls))
                os.close(fd)
                fd = os.open("/dev/null", os.O_PATH)  # has no account
                assert await kept.host.call("cgroup_released", Released("/x", fd))
                os.close(fd)

    complete(run())
    rows = database.execute(
        "SELECT account, split_part(path, '/', 3), extract(epoch FROM began)::int, cpu_s, memory_peak, processes, oom "
        "FROM accounting.usage ORDER BY path"
    )
    assert rows == [
        ("alice", "inner", 1764110000, 1.5, 87, 9, None),
        ("alice", "unknown", None, None, None, None, None),
    ]


def test_accounting_without_its_table(database: Database) -> None:
    async def run() -> None:
        with cgroup_chain("inner") as path:
            os.setxattr(path, "user.account", b"alice")
            async with example("accounting.lua") as kept:
                fd = os.open(path, os.O_PATH)
                assert await kept.host.call("cgroup_released", Released("/a", fd))
                os.close(fd)
                assert kept.printed[-1].startswith('not accounted: alice /a: ERROR:  relation "usage" does not exist')

    complete(run())


def test_lockout(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute(LOCKOUT)
    monkeypatch.setenv("CONTROL", f"{tmp_path}/control")

    def lock(account: str) -> None:
        database.execute("INSERT INTO lockout VALUES (%s)", account)
        database.execute("NOTIFY lockout")

    async def run() -> None:
        database.execute("INSERT INTO lockout VALUES ('before')")
        async with example("lockout.lua") as kept:
            assert "cannot connect to" in kept.printed[-1], "nobody has the control socket yet"
            with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as control:
                control.setblocking(False)
                control.bind(f"{tmp_path}/control")
                await asyncio.to_thread(lock, "mallory")
                received = [await asyncio.get_running_loop().sock_recv(control, 100) for _ in range(2)]
                assert received == [
                    bytes.fromhex("63046101 0006 0010") + b"before\0\0",
                    bytes.fromhex("63046101 0007 0010") + b"mallory\0",
                ]
                await wait_for(lambda: kept.printed[-1] == "told to end the processes of mallory")
                assert database.execute("SELECT count(*) FROM lockout WHERE told IS NULL") == [(0,)]
                database.execute("UPDATE lockout SET told = NULL WHERE account = 'mallory'")
                assert await kept.host.call("reload")
                assert (await asyncio.get_running_loop().sock_recv(control, 100)).endswith(b"mallory\0")

    complete(run())


def test_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    key = PrivateKey.generate()

    async def run() -> None:
        with cgroup_chain("inner") as path, closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as collector:
            os.setxattr(path, "user.account", b"alice")
            collector.bind(("127.0.0.1", 0))
            collector.setblocking(False)
            monkeypatch.setenv("COLLECTOR", f"127.0.0.1:{collector.getsockname()[1]}")
            monkeypatch.setenv("COLLECTOR_KEY", bytes(key.public_key).hex())
            async with example("collector.lua") as kept:
                fd = os.open(path, os.O_PATH)
                assert await kept.host.call(
                    "cgroup_released", Released("/a", fd, 1764110000.5, 2.5, {"cpu_total": 1.5, "pids_forks": 7})
                )
                os.close(fd)
                datagram = await asyncio.get_running_loop().sock_recv(collector, 4096)
                report = SealedBox(key).decrypt(datagram)
                assert report == b"path=/a\nbtime=1764110000\nage=2.5\ncpu_total=1.5\npids_forks=7\naccount=alice"

    complete(run())


@pytest.mark.parametrize(("key", "problem"), [("", "has not 64 digits"), ("abcd", "64 digits"), ("x", "not hexadec")])
def test_a_collector_with_a_wrong_key(monkeypatch: pytest.MonkeyPatch, key: str, problem: str) -> None:
    monkeypatch.setenv("COLLECTOR_KEY", key)

    async def run() -> None:
        async with example("collector.lua"):
            pass

    with pytest.raises(ScriptError, match=problem):
        complete(run())
