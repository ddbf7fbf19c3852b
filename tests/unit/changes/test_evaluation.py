"""Evaluations of real files in real children, shared by who asks."""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from supervisor.changes import evaluation
from supervisor.changes.evaluation import Done, Evaluations
from supervisor.definitions import programs
from supervisor.definitions.service import Definitions
from supervisor.errors import DefinitionsError
from supervisor.loop.loop import Loop
from supervisor.process.children import Children
from tests import fuse
from tests.unit.waiting import DEADLINE

PATIENCE = 30.0  # seconds


class World:
    """A loop that reaps, a definition file, and what those who asked were told, in order."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "a.lua"
        self.errors: list[BaseException] = []
        self.loop = Loop(on_error=self.errors.append)
        children = Children(lambda pid, exit: None)
        self.loop.on_signal(signal.SIGCHLD, children.reap)
        self.evaluations = Evaluations(self.loop, children, [str(self.file)])
        self.told: list[tuple[str, list[str]]] = []

    def define(self, *names: str) -> None:
        self.file.write_text("".join(f'{name} = {{ exec = "/x" }}\n' for name in names))

    def asker(self, who: str, then: Callable[[], None] = lambda: None) -> Done:
        return partial(self._tell, who, then)

    def _tell(self, who: str, then: Callable[[], None], result: Definitions | DefinitionsError) -> None:
        self.told.append((who, list(result.services) if isinstance(result, Definitions) else result.problems))
        then()

    def run_until(self, condition: Callable[[], bool]) -> None:
        late = self.loop.call_later(PATIENCE, self.loop.stop)

        def look() -> None:
            if condition():
                self.loop.stop()
            else:
                self.loop.call_later(0.001, look)

        look()
        self.loop.run()
        late.cancel()
        assert condition(), "not in time"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.define("a")
    yield world
    world.loop.close()
    assert world.errors == []


def test_a_large_spawnd_takes_nothing_from_the_memory_of_an_evaluation(world: World) -> None:
    with mmap.mmap(-1, 2 * evaluation.ADDRESS_SPACE):
        world.evaluations.ask(world.asker("who"))
        world.run_until(lambda: bool(world.told))
    assert world.told == [("who", ["a"])]


def test_who_asks_before_it_begins_is_told_the_same(world: World) -> None:
    ask = world.evaluations.ask
    ask(world.asker("first"))
    world.define("b")  # perhaps too late for the first, in time for those who ask now
    ask(world.asker("second"))
    ask(world.asker("third"))
    world.run_until(lambda: len(world.told) == 3)
    assert [who for who, _ in world.told] == ["first", "second", "third"]
    assert world.told[1:] == [("second", ["b"]), ("third", ["b"])]


def test_who_asks_twice_is_told_once_more(world: World) -> None:
    again = world.asker("again")
    for _ in range(5):
        world.evaluations.ask(again)
        assert world.evaluations.is_awaited_by(again)
    world.evaluations.ask(world.asker("last"))
    world.run_until(lambda: ("last", ["a"]) in world.told)
    assert [who for who, _ in world.told] == ["again", "again", "last"]
    assert not world.evaluations.is_awaited_by(again)


def test_problems_are_told(world: World) -> None:
    world.file.write_text("a = {")
    world.evaluations.ask(world.asker("x"))
    world.run_until(lambda: bool(world.told))
    assert world.told[0][1][0].startswith(f"{world.file}:1: ")


def test_nothing_begins_while_it_is_held(world: World) -> None:
    quiet: list[str] = []
    world.evaluations.ask(world.asker("before"))
    world.evaluations.hold(lambda: quiet.append("quiet"))
    world.evaluations.ask(world.asker("meanwhile", then=lambda: quiet.append("told")))
    assert quiet == []
    world.run_until(lambda: bool(quiet))
    assert (quiet, world.told) == (["quiet"], [("before", ["a"])])
    world.define("b")
    world.evaluations.release()
    world.run_until(lambda: len(world.told) == 2)
    assert world.told[1] == ("meanwhile", ["b"])
    assert quiet == ["quiet", "told"]


def test_a_hold_without_an_evaluation_is_quiet_at_once(world: World) -> None:
    quiet: list[bool] = []
    world.evaluations.hold(lambda: quiet.append(True))
    world.run_until(lambda: bool(quiet))
    world.evaluations.release()


def test_one_that_fails_does_not_keep_the_others_from_being_told(world: World) -> None:
    def fail() -> None:
        raise RuntimeError("a mistake")

    world.evaluations.ask(world.asker("zeroth"))
    world.evaluations.ask(world.asker("first", fail))
    world.evaluations.ask(world.asker("second"))
    world.run_until(lambda: len(world.told) == 3)
    assert [str(error) for error in world.errors] == ["a mistake"]
    world.errors.clear()


def notices_of(world: World) -> list[tuple[str, ...]]:
    """The notices of one evaluation."""
    found: list[tuple[str, ...]] = []

    def told(result: Definitions | DefinitionsError) -> None:
        assert isinstance(result, Definitions)
        found.append(result.notices)

    world.evaluations.ask(told)
    world.run_until(lambda: bool(found))
    return found


def test_programs_are_looked_for(world: World) -> None:
    assert notices_of(world) == [(f"{world.file}:1: a: exec: '/x' does not exist",)]


def test_a_look_for_programs_that_hangs_costs_no_more_than_its_notices(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "LOOK_LIMIT", 0.2)
    with monkeypatch.context() as hanging:
        hanging.setattr(programs, "check_programs", lambda *_: signal.pause())
        assert notices_of(world) == [(evaluation.NOT_LOOKED,)]
    monkeypatch.undo()
    assert "does not exist" in notices_of(world)[0][0]


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_searches_for_programs_that_hang_are_not_repeated_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No signal ends their children; there are only so many, and none any more once the file system answers."""
    refused = "cannot look for programs: a file system has not answered 2 earlier searches"
    monkeypatch.setattr(evaluation, "LOOK_LIMIT", 0.2)
    monkeypatch.setattr(evaluation, "MOST_SEARCHING", 2)
    with monkeypatch.context() as hanging, fuse.unanswering(fuse.OPEN) as path:
        hanging.setattr(programs, "check_programs", lambda *_: os.open(path, os.O_RDONLY))
        told: list[str] = []
        end = time.monotonic() + DEADLINE
        while not told or told[-1] == evaluation.NOT_LOOKED:  # one that was killed before it has hung does not count
            assert time.monotonic() < end
            told += notices_of(world)[0]
        assert len(told) > 2
        assert told[-1] == refused
    end = time.monotonic() + DEADLINE
    while notices_of(world)[0][0] == refused:  # until the children have ended
        assert time.monotonic() < end


def test_a_look_for_programs_that_fails_costs_no_more_than_its_notices(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "check_programs", lambda *_: os.abort())
    ((notice,),) = notices_of(world)
    assert notice.startswith("cannot look for programs: evaluation killed by ABRT")


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_definitions_whose_file_system_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No signal ends the children, and they are not waited for; there are only so many."""
    monkeypatch.setattr(evaluation, "TIME_LIMIT", 0.2)
    monkeypatch.setattr(evaluation, "MOST_HANGING", 2)
    with fuse.unanswering(fuse.OPEN) as path:
        world.file.unlink()
        world.file.symlink_to(path)
        told: list[str] = []
        end = time.monotonic() + DEADLINE
        while not told or "took longer than 0.2 s" in told[-1]:  # one that was killed before it has hung does not count
            assert time.monotonic() < end
            world.evaluations.ask(world.asker(f"{len(told)}"))
            world.run_until(lambda: bool(world.told))
            ((who, problems),) = world.told
            world.told.clear()
            assert who == f"{len(told)}"
            told.append(problems[0])
        assert len(told) > 2
        assert "has not answered 2 earlier evaluations" in told[-1]
        quiet: list[bool] = []
        world.evaluations.hold(lambda: quiet.append(True))
        world.run_until(lambda: bool(quiet))
        world.evaluations.release()
    monkeypatch.undo()
    world.file.unlink()
    world.define("a")
    while world.told != [("fourth", ["a"])]:  # as soon as a child has ended
        world.told.clear()
        world.evaluations.ask(world.asker("fourth"))
        world.run_until(lambda: bool(world.told))
