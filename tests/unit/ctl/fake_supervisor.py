"""A control server over a fake core in a process of its own, for a spawnctl that waits for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn

from supervisor.control.server import Server
from supervisor.definitions.service import Service
from supervisor.loop.loop import Loop
from tests.unit.control.fake_core import FakeCore, FakeUnit

SetUp = Callable[[FakeCore], None]


class FakeSupervisor:
    """Runs from its making to `close`; it accepts as soon as it is made.  Has web, qotd, mute and, built in, log."""

    def __init__(self, path: str, set_up: SetUp = lambda core: None) -> None:
        ready_r, ready_w = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _serve(path, set_up, ready_w)
        os.close(ready_w)
        assert os.read(ready_r, 1) == b"r", "the fake supervisor has not started"
        os.close(ready_r)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _serve(path: str, set_up: SetUp, ready: int) -> NoReturn:
    try:
        loop = Loop(on_error=lambda error: os._exit(3))
        services = [Service("web", file="/a.lua", line=3, description="serves pages"), Service("qotd"), Service("mute")]
        core = FakeCore(loop, services)
        core.units["log"] = FakeUnit(Service("log", description="built in"), loop.clock(), internal=True)
        set_up(core)
        Server(loop, core, path, lambda _pid, _ended: None)
        os.write(ready, b"r")
        loop.run()
    finally:
        os._exit(1)
