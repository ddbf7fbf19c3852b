from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from supervisor.varlink.messages import Call
from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import Script, play, until
from workers.reaper import control
from workers.reaper.control import INTERFACE, reaper_control
from workers.reaper.reaper import Reaper
from workers.runtime import control as runtime_control

pytestmark = needs_root
Ask = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


def asking(reaper: Reaper) -> Ask:
    served = reaper_control(reaper)

    async def ask(method: str, **parameters: object) -> dict[str, Any]:
        message, _ = await served.answer_async(Call(f"{INTERFACE}.{method}", parameters))
        reply: dict[str, Any] = json.loads(message[:-1])
        return reply

    return ask


def test_what_it_watches_and_has_done() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        ask = asking(reaper)
        for path in ("a/inner", "b"):
            own.make(path)
        own.pass_through("b")
        await until(lambda: script.told)
        await until(lambda: len(reaper.tree.members()) == 2)
        status = (await ask("Status"))["parameters"]
        assert status["scopes"] == [
            {"path": own.scope, "present": True, "cgroups": 2},
            {"path": "/nowhere.scope", "present": False, "cgroups": 0},
        ]
        assert status["cgroups"] == 2
        assert status["watches"] == 2 * 2 + 4, "two for a cgroup; the scope and the three above it"
        assert status["counters"] == {
            "released": 1,
            "deleted_by_others": 0,
            "unseen": 0,
            "repopulated": 0,
            "failed": 0,
        }
        assert status.get("accounting") is None
        own.enter("a/inner")
        await until(lambda: all(node.used for node in reaper.tree.members()))
        found = (await ask("Cgroups"))["parameters"]
        assert [row["path"] for row in found["cgroups"]] == [f"{own.scope}/a", f"{own.scope}/a/inner"]
        assert all(row["used"] and not row["empty"] for row in found["cgroups"])
        found = (await ask("Cgroups", below=f"{own.scope}/a/inner", limit=1))["parameters"]
        assert (len(found["cgroups"]), found["more"]) == (1, False)
        assert (await ask("Cgroups", limit=1))["parameters"]["more"]
        assert (await ask("Totals"))["error"] == f"{INTERFACE}.NoDatabase"

    play(scenario, Ground.make, more_scopes=("/nowhere.scope",))


def test_totals(tmp_path: Path) -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        ask = asking(reaper)
        own.make("one")
        own.pass_through("one")
        assert reaper.accounting is not None
        writer = reaper.accounting
        await until(lambda: writer.kept)
        found = (await ask("Totals", by="path", path=f"{own.scope}/", since=1.0, where={}))["parameters"]
        assert [(group["name"], group["cgroups"]) for group in found["groups"]] == [(f"{own.scope}/one", 1)]
        assert found["all"]["cgroups"] == 1
        for wrong in ({"by": "size"}, {"sort": "1; DROP TABLE x"}, {"by": "xattr"}, {"xattr": "a"}, {"top": 0},
                      {"top": 1001}, {"depth": 0}, {"where": {"a": 1}}, {"since": "now"}, {"what": 1}):  # fmt: skip
            reply = await ask("Totals", **wrong)
            (name,) = wrong.keys() if "by" not in wrong or wrong["by"] != "xattr" else ("xattr",)
            assert (reply["error"], reply["parameters"]) == (
                "org.varlink.service.InvalidParameter",
                {"parameter": name},
            )
        status = (await ask("Status"))["parameters"]["accounting"]
        assert status["database"] == f"sqlite:{tmp_path}/a.db"
        assert (status["kept"], status["refused"], status.get("trouble")) == (1, 0, None)

    play(scenario, Ground.make, database=f"sqlite:{tmp_path}/a.db", spool=str(tmp_path / "spool"))


def test_a_password_is_not_told(tmp_path: Path) -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        reply = await asking(reaper)("Status")
        assert reply["parameters"]["accounting"]["database"] == "postgresql"

    play(scenario, Ground.make, database="postgresql:host=/nowhere password=secret", spool=str(tmp_path / "spool"))


def test_a_database_that_cannot_be_asked(tmp_path: Path) -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        reply = await asyncio.wait_for(asking(reaper)("Totals"), 60)
        assert reply["error"] == "io.spawnd.Failed"
        assert "nowhere" in reply["parameters"]["message"]

    play(scenario, Ground.make, database="sqlite:/nowhere/a.db", spool=str(tmp_path / "spool"))


def test_the_interface_is_served() -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        served = reaper_control(reaper)
        call = Call("org.varlink.service.GetInterfaceDescription", {"interface": INTERFACE})
        message, _ = await served.answer_async(call)
        assert "method Totals" in json.loads(message[:-1])["parameters"]["description"]

    play(scenario, Ground.make)


def test_a_long_list_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply has room for so many bytes, however many cgroups are asked for."""

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        ask = asking(reaper)
        names = [f"{number}-{'x' * 200}" for number in range(9)]
        for name in names:
            own.make(name)
        await until(lambda: len(reaper.tree.members()) == 9)
        found: list[str] = []
        more = True
        while more:
            part = (await ask("Cgroups", below=own.scope, after=found[-1] if found else None))["parameters"]
            assert 1 <= len(part["cgroups"]) <= 3
            found += [row["path"] for row in part["cgroups"]]
            more = part["more"]
        assert found == [f"{own.scope}/{name}" for name in names]

    monkeypatch.setattr(control, "REPLY_ROOM", 1200)
    play(scenario, Ground.make)


def test_a_reply_that_is_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        reply = await asking(reaper)("Status")
        assert reply["error"] == "io.spawnd.Failed"
        assert "longer than 100 bytes" in reply["parameters"]["message"]

    monkeypatch.setattr(runtime_control, "MAX_REPLY", 100)
    play(scenario, Ground.make)
