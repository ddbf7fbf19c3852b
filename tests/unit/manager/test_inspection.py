"""A look at paths in a child: what it finds, and one that never ends."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from supervisor.loop.loop import Loop
from supervisor.manager import inspection
from supervisor.manager.inspection import Sights, inspect_paths
from supervisor.process.children import Children
from supervisor.process.paths import Mark, Sight

MARKS: dict[str, tuple[Mark, ...]] = {"a": (Mark(3, "/nonexistent/file", 1, 2, False), Mark(4, "/", 1, 2, False))}


def inspect(marks: dict[str, tuple[Mark, ...]]) -> Sights:
    errors: list[BaseException] = []
    loop = Loop(on_error=errors.append)
    children = Children(lambda pid, exit: None)
    loop.on_signal(signal.SIGCHLD, children.reap)
    told: list[Sights] = []

    def done(sights: Sights) -> None:
        told.append(sights)
        loop.call_later(0.05, loop.stop)  # and nothing comes twice

    inspect_paths(loop, children, marks, done)
    loop.call_later(30, loop.stop)
    loop.run()
    while children.pids():
        children.reap()
    loop.close()
    assert errors == []
    (sights,) = told
    return sights


def test_what_has_changed_is_told_by_unit() -> None:
    gone, root = MARKS["a"]
    assert inspect(MARKS) == {"a": {gone: Sight.DELETED, root: Sight.REPLACED}}


def test_without_paths_there_is_nothing_to_look_at() -> None:
    assert inspect({}) == {}


def test_a_file_system_that_does_not_answer_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inspection, "look", lambda marks: time.sleep(1000))
    monkeypatch.setattr(inspection, "TIME_LIMIT", 0.1)
    assert inspect(MARKS) == {}


def test_a_child_that_dies_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inspection, "look", lambda marks: signal.raise_signal(signal.SIGKILL))
    assert inspect(MARKS) == {}
