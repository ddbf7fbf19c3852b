"""Idle services that are stopped for a moment: whatever happens meanwhile, they go on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import NoReturn

import pytest

from supervisor.definitions.service import Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import Cause, Idleness, Life, State
from supervisor.loop.loop import Loop
from supervisor.manager import idle
from supervisor.manager.idle import AT_ONCE, UNKNOWN
from supervisor.manager.manager import Manager
from supervisor.manager.unit import Unit
from supervisor.process.pids import continue_all, read_process, start_time
from supervisor.process.run import Run
from supervisor.process.use import Asked, answer_use
from supervisor.takeover.records import StateWriter
from tests.daemon import wait_until
from tests.unit.manager.test_manager import a_manager
from tests.unit.waiting import run_until

IDLE = 0.05
SERVICE = Service("s", exec="/bin/sleep", demand=True, idle_stop=IDLE, watchdog=100.0, stop_timeout=5.0)


def state_of(pid: int) -> str:
    process = read_process(pid)
    return process.state if process is not None else "gone"


def is_stopped(pid: int) -> bool:
    return state_of(pid) == "T"


@contextmanager
def running(manager: Manager, loop: Loop, service: Service = SERVICE) -> Iterator[tuple[Unit, int]]:
    """A unit whose process runs and waits."""
    process = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
    try:
        unit = manager.add(service)
        manager.index()
        wait_until(lambda: state_of(process.pid) == "S", "the program")
        unit.life = Life(State.RUNNING, loop.clock(), up_since=loop.clock(), watchdog_at=loop.clock() + 100)
        manager.processes.take_over(unit, Run(process.pid, started=start_time(process.pid)))
        manager.idlers.changed(unit)
        yield unit, process.pid
    finally:
        process.kill()
        process.wait()
        manager.children.reap()  # those that have looked


def stopped(manager: Manager, unit: Unit, pid: int) -> None:
    """Stop it, as for a look."""
    unit.frozen = {pid: start_time(pid)}
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(pid), "the stop")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """All changes count as written; the list has whether the state file can be written."""
    answers = [True]
    monkeypatch.setattr(StateWriter, "is_current", property(lambda _writer: answers[0]))
    return answers


def test_one_that_nobody_uses_is_told_to_end_and_then_goes_on(loop: Loop, written: list[bool]) -> None:
    with a_manager(loop) as manager, running(manager, loop) as (unit, pid):
        run_until(loop, lambda: unit.life.state is State.STOPPING)
        assert (unit.life.cause, unit.frozen, unit.idle) == (Cause.IDLE, None, None)
        assert unit.life.reason == "idle for 0.05 s"
        wait_until(lambda: state_of(pid) == "Z", "the end")


def test_nothing_is_stopped_that_cannot_be_written_down(loop: Loop, written: list[bool]) -> None:
    written[0] = False
    with a_manager(loop) as manager, running(manager, loop) as (unit, pid):
        run_until(loop, lambda: unit.idle is not None and unit.idle.busy == "the state file cannot be written")
        assert (unit.frozen, state_of(pid)) == (None, "S")


def test_the_next_spawnd_lets_it_go_on(loop: Loop) -> None:
    with a_manager(loop) as manager, running(manager, loop) as (unit, pid):
        stopped(manager, unit, pid)
        manager.rebuild(unit)
        wait_until(lambda: state_of(pid) == "S", "the continuation")
        assert unit.frozen is None
        assert unit.idle is not None


def test_a_stop_that_is_ordered_meanwhile_is_heard(loop: Loop) -> None:
    with a_manager(loop) as manager, running(manager, loop) as (unit, pid):
        stopped(manager, unit, pid)
        manager.stop(["s"])
        assert unit.frozen is None
        wait_until(lambda: state_of(pid) == "Z", "the end")


def test_a_restart_for_another_reason_is_heard(loop: Loop) -> None:
    with a_manager(loop) as manager, running(manager, loop) as (unit, pid):
        stopped(manager, unit, pid)
        manager.event(unit, machine.watchdog_missed)
        assert unit.frozen is None
        wait_until(lambda: state_of(pid) == "Z", "the end")


def test_the_others_go_on_when_the_main_process_is_killed(loop: Loop) -> None:
    """They are to live on, as `kill_mode` says."""
    with a_manager(loop) as manager, running(manager, loop, replace(SERVICE, kill_mode="process")) as (unit, pid):
        with ExitStack() as stack:
            other = stack.enter_context(subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True))
            stack.callback(other.kill)
            stopped(manager, unit, pid)
            assert unit.frozen is not None
            unit.frozen[other.pid] = start_time(other.pid)
            os.kill(other.pid, signal.SIGSTOP)
            wait_until(lambda: is_stopped(other.pid), "the stop")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: state_of(pid) == "Z", "the end")
            manager.children.reap()
            wait_until(lambda: state_of(other.pid) == "S", "the continuation")
            assert unit.run is None


def test_a_look_that_fails_lets_it_go_on(loop: Loop, written: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one, whose child is killed."""
    look = answer_use

    def die_at_the_second(asked: Mapping[str, Asked], fd: int) -> None:
        if any(each.to_stand for each in asked.values()):
            os.kill(os.getpid(), signal.SIGKILL)
        look(asked, fd)

    monkeypatch.setattr(idle, "answer_use", die_at_the_second)
    with a_manager(loop) as manager, running(manager, loop) as (unit, pid):
        run_until(loop, lambda: unit.idle is not None and unit.idle.busy == UNKNOWN.obstacle)
        wait_until(lambda: state_of(pid) == "S", "the continuation")
        assert unit.life.state is State.RUNNING
        assert unit.frozen is None


def test_no_child_for_the_second_look(loop: Loop, written: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    with a_manager(loop) as manager, running(manager, loop) as (unit, pid):

        def no_child(*_args: object) -> NoReturn:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        run_until(loop, lambda: unit.idle is not None and unit.idle.since is not None)
        monkeypatch.setattr(idle, "AnsweringChild", no_child)
        unit.frozen = {pid: start_time(pid)}
        os.kill(pid, signal.SIGSTOP)
        manager.idlers._look([unit], lambda found: manager.idlers._judge_frozen([unit], found))
        wait_until(lambda: state_of(pid) == "S", "the continuation")
        assert unit.idle is not None
        assert unit.idle.busy == UNKNOWN.obstacle


def test_one_that_cannot_go_on_is_tried_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_manager(loop) as manager, running(manager, loop) as (unit, pid):
        stopped(manager, unit, pid)
        tries = list[int]()

        def no_room(processes: Mapping[int, int]) -> None:
            tries.append(1)
            if len(tries) < 3:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            continue_all(processes)

        monkeypatch.setattr(idle, "continue_all", no_room)
        manager.idlers.let_go_on(unit)
        run_until(loop, lambda: len(tries) == 2)
        assert is_stopped(pid)  # and is not looked at meanwhile
        run_until(loop, lambda: len(tries) == 3)
        assert unit.frozen is None
        wait_until(lambda: state_of(pid) == "S", "the continuation")


def test_its_watchdog_does_not_count_the_time(loop: Loop, written: list[bool]) -> None:
    with a_manager(loop) as manager, running(manager, loop) as (unit, _pid):
        before = unit.life.watchdog_at or 0
        seen: list[float] = []  # while it is stopped

        def hear(unit: Unit) -> None:
            if unit.frozen is not None:
                seen.append(unit.life.watchdog_at or 0)

        manager.hear = hear
        run_until(loop, lambda: seen)
        assert seen[0] > before + 1


def test_a_word_that_came_before_the_look_counts(loop: Loop, written: list[bool]) -> None:
    with a_manager(loop) as manager, running(manager, loop) as (unit, pid):

        def hear(unit: Unit) -> None:
            if unit.frozen is not None:
                manager.said_busy(unit, True)

        manager.hear = hear
        run_until(loop, lambda: unit.says_busy)
        wait_until(lambda: state_of(pid) == "S", "the continuation")
        assert unit.life.state is State.RUNNING
        assert unit.frozen is None
        assert unit.idle == Idleness(busy="it says so")


def test_there_is_no_timer_without_a_service_to_look_at(loop: Loop) -> None:
    with a_manager(loop) as manager, running(manager, loop) as (unit, _pid):
        assert manager.idlers._timer is not None
        manager.said_busy(unit, True)
        run_until(loop, lambda: manager.idlers._timer is None)
        manager.said_busy(unit, False)
        assert manager.idlers._timer is not None
        manager.stop(["s"])
        assert manager.idlers._timer is None


def test_many_are_stopped_a_few_at_a_time(loop: Loop, written: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[int] = []
    freeze = idle.Idlers._freeze

    def counted(idlers: idle.Idlers, chosen: Mapping[Unit, object]) -> bool:
        at_once.append(len(chosen))
        return freeze(idlers, chosen)  # type: ignore[arg-type]

    monkeypatch.setattr(idle.Idlers, "_freeze", counted)
    monkeypatch.setattr(idle, "AT_ONCE", 2)
    assert AT_ONCE > 2
    with a_manager(loop) as manager:
        with ExitStack() as stack:
            names = [f"s{number}" for number in range(5)]
            units = [stack.enter_context(running(manager, loop, replace(SERVICE, name=name)))[0] for name in names]
            run_until(loop, lambda: all(unit.life.state is State.STOPPING for unit in units))
        assert sum(at_once) == 5
        assert max(at_once) <= 2
