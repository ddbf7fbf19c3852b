"""A boot of the host with start-up scripts: 30 modules, and whatever else is installed, all under their controllers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.daemon import wait_until
from tests.vm.guest.installed import (
    DEFINITIONS,
    PATIENCE,
    PAUSE,
    SCOPE_FOLDER,
    UNIT,
    call,
    clean_up,
    run,
    services,
    state,
)

pytestmark = pytest.mark.skipif("MACHINE" not in os.environ, reason="runs in a machine that the tests have booted")

SCRIPTS = DEFINITIONS.with_name("start-up.lua")
NOTES = Path("/var/lib/checks-start-up")
LEVELS, WIDTH = 6, 5  # each needs two of the level before
MODULE = """
module("{name}", package.seeall)
depends(_M{depends})
memory_max = "64m"
function start()
  note("+" .. _NAME)
  return proc.run("true") and true
end
function stop() note("-" .. _NAME) end
"""
NOTE = f"""
local function note(text)
  return fsys.write("{NOTES}", text .. "\\n", {{ append = true }})
end
"""
UP = ("running", "done")


def needs() -> dict[str, list[str]]:
    found = {}
    for level in range(LEVELS):
        for number in range(WIDTH):
            others = (number, (number + 1) % WIDTH) if level else ()
            found[f"start-{level}{number}"] = [f"start-{level - 1}{other}" for other in others]
    return found


def definitions() -> str:
    texts = [NOTE]
    for name, others in needs().items():
        texts.append(MODULE.format(name=name, depends="".join(f', "{other}"' for other in others)))
    return "".join(texts)


def test_scripts_are_there_for_the_next_boot() -> None:
    assert len(needs()) == 30
    SCRIPTS.write_text(definitions())
    NOTES.unlink(missing_ok=True)
    run("systemctl", "enable", UNIT)


@pytest.mark.boot(2)
def test_all_are_up_after_the_boot_in_an_order_that_respects_every_edge() -> None:
    wait_until(lambda: state() == "active", "an active spawnd", PATIENCE, PAUSE)
    wait_until(lambda: all(row["state"] in UP for row in services().values()), "all up", PATIENCE, PAUSE)
    assert needs().keys() <= services().keys()
    graph = call("Graph")
    nodes = {node["name"]: node for node in graph["nodes"]}
    for edge in graph["edges"]:
        assert nodes[edge["to"]]["came_up"] <= nodes[edge["from"]]["began"], edge
    printed = run("spawnctl", "graph", "--times").splitlines()
    assert len(printed) >= 1 + len(needs())
    assert any(line.startswith("*") for line in printed)


@pytest.mark.boot(2)
def test_the_controllers_are_there_for_each() -> None:
    controllers = (SCOPE_FOLDER / "cgroup.controllers").read_text().split()
    assert {"cpu", "io", "memory", "pids"} <= set(controllers)
    limits = [folder / "memory.max" for folder in SCOPE_FOLDER.rglob("start-*") if (folder / "memory.max").exists()]
    assert len(limits) == len(needs())
    assert {limit.read_text().strip() for limit in limits} == {str(64 << 20)}


@pytest.mark.boot(2)
def test_a_stop_of_the_unit_brings_all_down_in_reverse() -> None:
    try:
        run("systemctl", "stop", UNIT)
        written = NOTES.read_text().split()
        place = {note: number for number, note in enumerate(written)}
        assert len(place) == len(written) == 2 * len(needs())
        for name, others in needs().items():
            for other in others:
                assert place[f"+{other}"] < place[f"+{name}"]
                assert place[f"-{name}"] < place[f"-{other}"]
    finally:
        SCRIPTS.unlink(missing_ok=True)
        clean_up()
