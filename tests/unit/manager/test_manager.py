"""Moments in which two things happen to a unit at once."""

from __future__ import annotations

import errno
import os
import select
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from supervisor.definitions.service import Descriptor, Service
from supervisor.lifecycle.life import Cause, Life, State
from supervisor.log.output import JournalOutputs
from supervisor.loop.loop import Loop
from supervisor.manager.host import HostFacts
from supervisor.manager.manager import Manager
from supervisor.manager.runtime import RuntimeFolder
from supervisor.manager.unit import Unit
from supervisor.notify.service_side import Sender
from supervisor.process.children import Children
from supervisor.systemd.reports import SystemdStore
from tests.unit.closing import PatientCloser
from tests.unit.program import PROGRAM
from tests.unit.waiting import run_until, turn


@contextmanager
def a_manager(loop: Loop) -> Iterator[Manager]:
    with tempfile.TemporaryDirectory() as folder:
        systemd_store = SystemdStore(loop, Sender(""), {})
        closer = PatientCloser()
        runtime, outputs = RuntimeFolder(folder), JournalOutputs(closer.close)
        host = HostFacts(False, 1024, runtime, outputs, None, systemd_store, closer, PROGRAM)
        yield Manager(loop, Children(lambda pid, exit: None), host)


def test_one_that_is_woken_when_it_is_the_next_to_stop(loop: Loop) -> None:
    """Its dependency has come up in the same moment in which what comes after it has stopped."""
    with a_manager(loop) as manager:
        waiting = manager.add(Service("waiting", exec="/bin/true"))
        later = manager.add(Service("later", exec="/bin/true", depends=("waiting",)))
        manager.index()
        waiting.life = Life(State.WAITING, loop.clock())
        later.life = Life(State.STOPPING, loop.clock())
        manager.stop(["waiting", "later"])
        assert waiting.life.state is State.WAITING
        later.life = Life(State.STOPPED, loop.clock())
        manager.index()  # wakes what waits
        turn(loop, 3)
        assert (waiting.life.state, later.life.state) == (State.STOPPED, State.STOPPED)


def test_a_removed_one_that_has_stopped_when_the_work_is_resumed(loop: Loop) -> None:
    """Its last process has ended while spawnd executed itself, before the order to stop it is given again."""
    with a_manager(loop) as manager:
        unit = manager.add(Service("s", exec="/bin/true"))
        manager.index()
        unit.life = Life(State.STOPPING, loop.clock())
        unit.removed, unit.ended_clean = True, True
        manager.activate({"stops": [("s", Cause.REMOVED, "")], "reloads": []})
        assert manager.units == {}


def test_no_plan_is_kept_for_a_service_at_rest(loop: Loop) -> None:
    with a_manager(loop) as manager:
        unit = manager.add(Service("s", exec="/bin/true"))
        plans = manager.processes._launcher.plans
        plans["s"] = plans["other"] = (), b"plan"
        manager.processes.release(unit)
        assert list(plans) == ["other"]


def test_one_whose_sockets_cannot_be_watched_tries_again_later(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would be deaf for as long as it sleeps."""

    def no_room(*_args: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    listener = Descriptor("stream", name="l", path=str(tmp_path / "socket"))
    with a_manager(loop) as manager, socket.socket(socket.AF_UNIX) as client:
        unit = manager.add(Service("s", exec="/bin/true", demand=True, fd=(listener,)))
        manager.index()
        with monkeypatch.context() as patch:
            patch.setattr(select, "epoll", no_room)
            manager.settle(["s"])
            run_until(loop, lambda: unit.life.state is State.BACKOFF)
        assert unit.life.reason == "cannot watch the sockets: Too many open files (EMFILE)"
        woken: list[Unit] = []
        monkeypatch.setattr(manager.sleepers, "_start", lambda unit, _life: woken.append(unit))
        client.connect(listener.path)  # the socket stays open meanwhile
        run_until(loop, lambda: woken == [unit])
        manager.stop(["s"])
        run_until(loop, lambda: unit.life.state is State.STOPPED)
