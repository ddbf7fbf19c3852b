"""The orders that are interrupted: what they do, and the state that they may leave."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.bench.kill_points_world import PLAIN, World
from tests.daemon import start_time, wait_until

SEARCH = 20.0  # seconds for a killed service to be back


class Order:
    """An order about the service `target`, which is `before` and comes to be `after`; `undo` makes it `before` again.

    `do` is the command, if it can be repeated.
    """

    name = ""
    before = after = "running"
    do: Sequence[str] = ()
    undo: Sequence[str] = ()

    def __init__(self, target: str = "") -> None:
        self.target = target

    def __str__(self) -> str:
        return f"{self.name} {self.target}".rstrip()

    def prepare(self, world: World) -> None:
        """Get ready, before anything is traced."""

    def act(self, world: World) -> int:
        """Give the order and return the exit status. Raises OSError, ValueError where spawnd is lost."""
        return world.ctl(*self.do)

    def spares(self, name: str) -> bool:
        """Whether the process of a service must be the same afterwards."""
        return name != self.target

    def judge(self, world: World, what: str) -> None:
        """Look for faults of this kind of order alone."""


class Stop(Order):
    name, after = "stop", "stopped"

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.do, self.undo = ("stop", target), ("start", target)


class Start(Order):
    name, before = "start", "stopped"

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.do, self.undo = ("start", target), ("stop", target)


class Restart(Order):
    name = "restart"

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.do = ("restart", target)


class Crash(Order):
    """The service dies, and is started again."""

    name = "crash"

    def prepare(self, world: World) -> None:
        self._pid = world.daemon.pid_of(self.target)

    def act(self, world: World) -> int:
        assert self._pid is not None
        pid = self._pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: start_time(pid) is None, "its end")
        wait_until(lambda: world.daemon.pid_of(self.target) not in (None, pid), "another process", SEARCH)
        return 0


class Loss(Order):
    """The take-over itself: spawnd is lost before the steps, and `target` dies with it, if any."""

    name = "loss"

    def prepare(self, world: World) -> None:
        pid = world.daemon.pid_of(self.target) if self.target else None
        world.daemon.lose()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: start_time(pid) is None, "its end")
        world.daemon.start()

    def act(self, world: World) -> int:
        with suppress(TimeoutError):
            wait_until(lambda: world.daemon.answers() or world.daemon.ended(), "an answer", SEARCH)
        return 0 if world.daemon.answers() else 1


class Apply(Order):
    """A definition changes, one is new and one is gone."""

    name = "apply"

    def __init__(self) -> None:
        super().__init__("plain")
        self._version = 1

    def prepare(self, world: World) -> None:
        self._version += 1
        path, name = world.daemon.definitions, self._extra
        text = re.sub(r'VERSION = "\d+"', f'VERSION = "{self._version}"', path.read_text())
        text = re.sub(r"\nextra\d = .*", "", text)
        path.write_text(f'{text}\n{name} = perl([==[{PLAIN}]==], "{name}")')

    def act(self, world: World) -> int:
        return world.ctl("apply")

    @property
    def _extra(self) -> str:
        return f"extra{self._version % 2}"

    def spares(self, name: str) -> bool:
        return name != self.target and not name.startswith("extra")

    def judge(self, world: World, what: str) -> None:
        rows = world.settle()
        if (extras := [name for name in rows if name.startswith("extra")]) != [self._extra]:
            world.faults.append(f"{what}: there are {extras}")
        pid = rows[self.target]["pid"]
        if pid and f"VERSION={self._version}".encode() not in Path(f"/proc/{pid}/environ").read_bytes():
            world.faults.append(f"{what}: {self.target} has its old definition")
        if world.ctl("apply") != 0:
            world.faults.append(f"{what}: apply fails; {world.new_log()[-800:]}")
        world.settle()


class Reexec(Order):
    name = "reexec"

    def act(self, world: World) -> int:
        return world.ctl("reexec")


def orders(targets: Sequence[str]) -> list[Order]:
    found: list[Order] = []
    for target in targets:
        found += [Stop(target), Start(target), Restart(target)]
        if target != "mod":  # which has no process
            found += [Crash(target), Loss(target)]
    return [*found, Apply(), Reexec(), Loss()]
