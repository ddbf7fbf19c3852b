"""docs/lua.md names everything that exists, and its examples print what they say."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tests.unit.workers.lua.scripts import Hosted, complete, hosted, wait_for
from tests.unit.workers.lua.test_cgroup import ALL
from workers.reaper.statistics import COUNTERS

TEXT = (Path(__file__).parents[4] / "docs" / "lua.md").read_text(encoding="utf-8").partition("\n# Start-up scripts")[0]
EXAMPLES = re.findall(r"```lua\n(.*?)```", TEXT, re.S)
PATH = "/system.slice/system-cm4all.slice/bp-spawn.scope/a"

# Every function of the libraries that a script can get at, by `library.name` or, of objects, `:name`.
FUNCTIONS = """
for library, value in pairs { socket = socket, control_client = control_client, sodium = sodium, pg = pg } do
  for name in pairs(value) do print(library, name) end
end
for _, value in ipairs { s, c, c:build(), db } do
  for name in pairs(debug.getmetatable(value).__index) do print("object", name) end
end
"""


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the addresses of the examples are replaced by."""
    with ExitStack() as stack:
        control = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        control.bind(f"{tmp_path}/control")
        collector = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        collector.bind(("127.0.0.1", 0))
        yield {
            "/run/cm4all/workshop/control": f"{tmp_path}/control",
            "127.0.0.1:7171": f"127.0.0.1:{collector.getsockname()[1]}",
        }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[0][:40])
def test_examples(
    example: str, peers: dict[str, str], server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", str(server.folder))
    monkeypatch.setenv("PGUSER", "tester")
    expected = re.findall(r"--> (.*)", example)
    assert expected, "an example shows what it does"
    for written, real in peers.items():
        example = example.replace(written, real)

    async def run() -> None:
        async with hosted(example) as kept:
            if kept.host.has("cgroup_released"):
                fd = os.open(tmp_path, os.O_PATH)  # which has no attributes
                assert await kept.host.call("cgroup_released", replace(ALL, path=PATH, fd=fd)), kept.errors.pop()
                os.close(fd)
            await wait_for(lambda: len(printed(kept)) >= len(expected))
            assert [line.replace("script:", "example:") for line in printed(kept)] == expected

    complete(run())


def printed(kept: Hosted) -> list[str]:
    return [line for line in kept.printed if not line.startswith("database ")]


def test_every_function_is_described(peers: dict[str, str]) -> None:
    script = (
        f"s = socket:connect('127.0.0.1:{peers['127.0.0.1:7171'].split(':')[1]}', {{type='dgram'}}) "
        f"c = control_client:new('{peers['/run/cm4all/workshop/control']}') db = pg:new('host=/nowhere')\n" + FUNCTIONS
    )

    async def run() -> list[str]:
        async with hosted(script) as kept:
            return kept.printed

    lines = complete(run())
    assert len(lines) > 25
    for line in lines:
        library, name = line.split("\t")
        pattern = rf"[`:.]{name}\(" if library != "sodium" else rf"^\| `{name}\("
        assert re.search(pattern, TEXT, re.M), line


@pytest.mark.parametrize("name", ["path", "btime", "age", *(counter.name for counter in COUNTERS)])
def test_every_attribute_is_described(name: str) -> None:
    assert re.search(rf"^\|[^|]*`{name}`", TEXT, re.M)


def test_the_libraries_are_those_of_the_page() -> None:
    """What the host adds to the globals of LuaJIT has a section."""

    async def run() -> set[str]:
        async with hosted("for name in pairs(_G) do print(name) end") as kept:
            return set(kept.printed)

    plain = set(
        "_G _VERSION arg assert bit collectgarbage coroutine debug dofile error gcinfo getfenv getmetatable io "
        "ipairs jit load loadfile loadstring math module newproxy next os package pairs pcall print rawequal rawget "
        "rawset require select setfenv setmetatable string table tonumber tostring type unpack xpcall".split()
    )
    added = complete(run()) - plain
    assert added == {"control_client", "control_resolve", "pg", "socket", "sodium"}
    for name in (*added, "cgroup", "print", "coroutine"):
        assert f"\n## {name}\n" in TEXT
