from __future__ import annotations

import asyncio
import time

import pytest

from tests.unit.workers.reaper.scenario import until
from workers.reaper import schedule as module
from workers.reaper.node import Kind, WatchedCgroup
from workers.reaper.schedule import Schedule


def node(name: str) -> WatchedCgroup:
    return WatchedCgroup(None, name, f"/{name}", Kind.MEMBER, 1)


def test_each_at_its_time_and_the_end_of_a_round_is_told() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        times: dict[str, float] = {}

        def due(nodes: list[WatchedCgroup]) -> None:
            for one in nodes:
                seen.append(one.name)
                times[one.name] = loop.time()

        schedule = Schedule(loop, due, lambda: seen.append("done"))
        now = loop.time()
        late, soon, removed = node("late"), node("soon"), node("removed")
        schedule.add(late, now + 0.2)
        schedule.add(removed, now + 0.1)
        schedule.add(soon, now + 0.05)
        schedule.remove(removed)
        await until(lambda: "late" in seen)
        await until(lambda: seen[-1] == "done")
        assert [name for name in seen if name != "done"] == ["soon", "late"]
        assert times["soon"] >= now + 0.05
        assert times["late"] >= now + 0.2
        schedule.add(late, loop.time() + 0.05)
        schedule.close()
        await asyncio.sleep(0.1)
        assert seen.count("late") == 1

    asyncio.run(run())


def test_those_that_fail_are_tried_again_and_do_not_keep_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FAILED_PAUSE", 0.05)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []

        def due(nodes: list[WatchedCgroup]) -> None:
            seen.extend(one.name for one in nodes)
            if "wrong" in seen and seen.count("wrong") < 3:
                raise KeyError("a mistake of ours")

        schedule = Schedule(loop, due, lambda: None)
        schedule.add(node("wrong"), loop.time())
        schedule.add(node("beside it"), loop.time())
        await until(lambda: seen.count("wrong") == 3)
        schedule.add(node("good"), loop.time())
        await until(lambda: "good" in seen)
        assert seen.count("beside it") == 3
        await asyncio.sleep(0.1)
        assert len(seen) == 7

    asyncio.run(run())
    assert caplog.text.count("unexpected error with 2 cgroups; trying again") == 2


def test_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 1)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        turns: list[int] = []
        seen: list[WatchedCgroup] = []

        def due(nodes: list[WatchedCgroup]) -> None:
            time.sleep(0.004)
            seen.extend(nodes)

        schedule = Schedule(loop, due, lambda: turns.append(len(seen)))
        for number in range(20):
            schedule.add(node(str(number)), loop.time())
        await until(lambda: len(seen) == 20)
        assert len(turns) >= 5
        assert turns[0] <= 4

    asyncio.run(run())


def test_what_is_due_at_nearly_the_same_time_is_done_together() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        rounds: list[int] = []
        seen: list[WatchedCgroup] = []
        schedule = Schedule(loop, seen.extend, lambda: rounds.append(len(seen)))
        when = loop.time() + 0.05
        for number in range(4):
            schedule.add(node(str(number)), when + number / 1000)
        await until(lambda: len(seen) == 4)
        assert len(rounds) <= 2  # 1 where nobody else has the machine

    asyncio.run(run())


def test_an_earlier_one_is_not_kept_by_a_later_one() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        schedule = Schedule(loop, lambda nodes: seen.extend(one.name for one in nodes), lambda: None)
        schedule.add(node("late"), loop.time() + 3600)
        schedule.add(node("early"), loop.time() + 0.01)
        await until(lambda: seen == ["early"])
        schedule.close()

    asyncio.run(run())
