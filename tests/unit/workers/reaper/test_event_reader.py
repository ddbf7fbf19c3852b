"""When events are read: with real watches, on folders that are no cgroups."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.workers.reaper.scenario import until
from workers.reaper import watches as module
from workers.reaper.node import Folders, Kind, WatchedCgroup
from workers.reaper.watches import CHUNK, Event, EventReader, Watches


class Heard:
    """The names of what was made in `folder`, by look; the looks in `refused` raise."""

    def __init__(self, folder: Path, refused: Sequence[int] = ()) -> None:
        self.folder = folder
        self.refused = refused
        self.looks: list[list[str]] = []
        self.worked = 0
        self.watches = Watches(Folders(str(folder)))
        self.watches.add(WatchedCgroup(None, "", "", Kind.SCOPE, folder.stat().st_ino))
        self.reader = EventReader(asyncio.get_running_loop(), self.watches, self._take, self._work)
        self.reader.start()

    def make(self, *names: str) -> None:
        for name in names:
            (self.folder / name).mkdir()

    @property
    def names(self) -> list[str]:
        return [name for look in self.looks for name in look]

    def close(self) -> None:
        self.reader.close()
        self.watches.close()

    def _take(self, events: Sequence[Event]) -> None:
        if events:
            self.looks.append([name for _wd, _mask, name in events])
            if len(self.looks) in self.refused:
                raise RuntimeError("a mistake of ours")

    def _work(self) -> None:
        self.worked += 1


def test_what_comes_at_nearly_the_same_time_is_read_together(tmp_path: Path) -> None:
    async def run() -> None:
        heard = Heard(tmp_path)
        heard.make("a")
        await asyncio.sleep(0)
        heard.make("b", "c")
        await until(lambda: heard.worked > 0)
        assert heard.looks == [["a", "b", "c"]]
        heard.close()

    asyncio.run(run())


def test_who_is_awake_reads_what_there_is_and_puts_off_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 3600.0)

    async def run() -> None:
        heard = Heard(tmp_path)
        heard.reader.take_some()
        heard.make("a")
        await until(lambda: heard.worked == 1)
        due = []
        for name in "bc":
            heard.make(name)
            heard.reader.take_some()
            assert isinstance(heard.reader._next, asyncio.TimerHandle)
            due.append(heard.reader._next.when())
        assert due == sorted(set(due))
        assert heard.looks == [["a"], ["b"], ["c"]]
        assert heard.worked == 1
        heard.close()

    asyncio.run(run())


@pytest.mark.parametrize("pause", [0.01, 0.3])
def test_it_goes_on_after_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: float) -> None:
    monkeypatch.setattr(module, "PAUSE", pause)

    async def run() -> None:
        heard = Heard(tmp_path)
        for number in range(5):
            heard.make(str(number))
            await until(lambda wanted=number + 1: len(heard.names) == wanted)  # type: ignore[misc]
            if pause < 0.1:
                await until(lambda: heard.reader._next is None)  # and the kernel wakes us up
        heard.close()

    asyncio.run(run())


def test_more_than_one_read_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 3600.0)

    async def run() -> None:
        heard = Heard(tmp_path)
        names = [f"{number:04}" for number in range(CHUNK // 16)]
        heard.make(*names)
        await until(lambda: len(heard.names) == len(names))
        assert len(heard.looks) > 1
        heard.close()

    asyncio.run(run())


def test_a_mistake_costs_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        heard = Heard(tmp_path, refused=[1, 2])
        for name in "abc":
            heard.make(name)
            await until(lambda wanted=name: wanted in heard.names)  # type: ignore[misc]
        await until(lambda: heard.worked > 0)
        heard.close()

    asyncio.run(run())


def test_nothing_is_looked_for_once_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOON", 1.0)  # the end comes before the look, also on a busy machine
    errors: list[dict[str, object]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        heard = Heard(tmp_path)
        heard.make("a")
        await until(lambda: heard.reader._next is not None)
        heard.close()
        await asyncio.sleep(1.2)
        assert (heard.looks, heard.worked, errors) == ([], 0, [])

    asyncio.run(run())
