"""The orders that are interrupted: what they do, and the state that they may leave."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.bench.kill_points_services import PLAIN
from tests.bench.kill_points_world import CLIENT_PATIENCE, ENDS, Client, World, is_let_in
from tests.daemon import start_time, wait_until

SEARCH = 20.0  # seconds for a killed service to be back
MAY_CUT = {"child", "both", "other"}  # modes that kill processes which may have accepted a client
NETWORK = "127.88"  # of the clients of traps


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

    def get_before(self, world: World) -> None:
        """Bring the target to the state before the order."""
        world.ctl({"running": "start", "asleep": "sleep", "stopped": "stop"}[self.before], self.target)

    def keeps_session(self, state: str, status: int | None) -> bool | None:
        """Whether a session of `sessions` must live on, given the state of the target; None if it may or may not."""
        return True

    def judge(self, world: World, what: str, mode: str) -> None:
        """Look for faults of this kind of order alone."""


class Stop(Order):
    name, after = "stop", "stopped"

    def __init__(self, target: str, before: str = "running") -> None:
        super().__init__(target)
        self.before = before
        self.do, self.undo = ("stop", target), ("sleep" if before == "asleep" else "start", target)

    def keeps_session(self, state: str, status: int | None) -> bool | None:
        if self.target != "sessions":
            return True
        return False if state == "stopped" else None


class StopKeeping(Order):
    name, after = "stop-keeping", "stopped"

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.do, self.undo = ("stop", "--keep-sessions", target), ("start", target)


class Sleep(Order):
    name, after = "sleep", "asleep"

    def __init__(self, target: str, before: str = "running") -> None:
        super().__init__(target)
        self.before = before
        self.do, self.undo = ("sleep", target), ("stop" if before == "stopped" else "start", target)


class Start(Order):
    name, before = "start", "stopped"

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.do, self.undo = ("start", target), ("stop", target)


class StartKept(Start):
    """A start while there are sessions of before."""

    name = "start-kept"

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.undo = ("stop", "--keep-sessions", target)

    def get_before(self, world: World) -> None:
        world.ctl("start", self.target)
        world.keep_session()
        world.ctl(*self.undo)


class Restart(Order):
    name = "restart"

    def __init__(self, target: str, before: str = "running") -> None:
        super().__init__(target)
        self.before = self.after = before
        self.do = ("restart", target)


class RestartSessions(Order):
    name = "restart-sessions"

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.do = ("restart", "--sessions", target)

    def keeps_session(self, state: str, status: int | None) -> bool | None:
        return False if status == 0 else None


class Crash(Order):
    """The service dies, and is started again."""

    name = "crash"

    def prepare(self, world: World) -> None:
        self._pid = world.daemon.pid_of(self.target)

    def act(self, world: World) -> int:
        assert self._pid is not None
        pid, starts = self._pid, world.starts(self.target)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: start_time(pid) is None, "its end")

        def is_back() -> bool:
            if starts is not None:  # no call, as this would be steps, too
                return world.starts(self.target) != starts
            return world.daemon.pid_of(self.target) not in (None, pid)

        wait_until(is_back, "another process", SEARCH)
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


class Wake(Order):
    """A client comes, is served and goes; a service that ends then sleeps again."""

    name = "wake"
    before = after = "asleep"

    def __init__(self, target: str, ends: bool = True) -> None:
        super().__init__(target)
        self._ends = ends
        if not ends:
            self.before = self.after = "running"
        self._cuts = 0
        self._pid: int | None = None

    def prepare(self, world: World) -> None:
        self._pid = world.daemon.pid_of(self.target)

    def act(self, world: World) -> int:
        self._cuts, client = 0, None
        deadline = time.monotonic() + CLIENT_PATIENCE
        while client is None and time.monotonic() < deadline:
            try:
                client = Client(str(world.daemon.folder / f"{self.target}.sock"))
            except (FileNotFoundError, ConnectionError):  # no socket survives where nobody but spawnd has it
                self._cuts += 1
                time.sleep(0.01)
            except TimeoutError:
                break
        if client is None:
            world.faults.append(f"{self}: a client is not served")
            return 1
        is_served = client.is_served()
        client.close()
        pid = client.pid
        if self._ends and is_served:
            wait_until(lambda: start_time(pid) is None, "its end", CLIENT_PATIENCE)
        return 0 if is_served else 1

    def judge(self, world: World, what: str, mode: str) -> None:
        if self._ends or mode in MAY_CUT:
            return
        if self._cuts:
            world.faults.append(f"{what}: a client was cut {self._cuts} times")
        if world.daemon.pid_of(self.target) != self._pid:
            world.faults.append(f"{what}: {self.target} has another process")


class Trap(Order):
    """A client comes to a trap, and is denied by other services then."""

    name = "trap"
    after = before = "running"

    def __init__(self) -> None:
        super().__init__("trap")
        self._count = 0

    def _source(self, number: int) -> str:
        return f"{NETWORK}.{number // 250}.{number % 250 + 1}"

    def prepare(self, world: World) -> None:
        self._count += 1
        self._trap, self._door = world.port("trap"), world.port("sessions")
        if not is_let_in(self._door, self._source(self._count)):
            world.faults.append(f"{self}: {self._source(self._count)} is denied before it has come to the trap")

    def act(self, world: World) -> int:
        is_let_in(self._trap, self._source(self._count))
        return 0 if not is_let_in(self._door, self._source(self._count)) else 1

    def judge(self, world: World, what: str, mode: str) -> None:
        trap, door = world.port("trap"), world.port("sessions")
        is_let_in(trap, self._source(self._count))  # the acceptor may have been killed with the first one
        for number in range(max(1, self._count - 3), self._count + 1):
            if is_let_in(door, self._source(number)):
                world.faults.append(f"{what}: {self._source(number)} is let in, though it came to the trap")
        if not is_let_in(door, self._source(self._count + 1)):
            world.faults.append(f"{what}: {self._source(self._count + 1)} is denied, and has not been at the trap")


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

    def judge(self, world: World, what: str, mode: str) -> None:
        rows = world.settle()
        if (extras := [name for name in rows if name.startswith("extra")]) != [self._extra]:
            world.faults.append(f"{what}: there are {extras}")
        pid = rows[self.target]["pid"]
        if pid and f"VERSION={self._version}".encode() not in Path(f"/proc/{pid}/environ").read_bytes():
            world.faults.append(f"{what}: {self.target} has its old definition")
        if world.ctl("apply") != 0:
            world.faults.append(f"{what}: apply fails; {world.new_log()[-800:]}")
        world.settle()


class Reopen(Order):
    """The file that a service writes to is moved, and begun anew at its path."""

    name = "reopen"

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.do = ("reopen", target)
        self._count = 0

    def prepare(self, world: World) -> None:
        self._path, self._moved = (world.daemon.folder / f"{self.target}.{end}" for end in ("out", "out.1"))
        self._count += 1
        with self._path.open("a") as file:
            file.write(f"line {self._count}\n")
        self._path.rename(self._moved)

    def spares(self, name: str) -> bool:
        return True

    def judge(self, world: World, what: str, mode: str) -> None:
        if world.ctl(*self.do) != 0:
            world.faults.append(f"{what}: once more: fails")
        texts = [path.read_text() if path.exists() else "" for path in (self._path, self._moved)]
        line = f"line {self._count}\n"
        if [text.count(line) for text in texts] not in ([0, 1], [1, 0]):
            world.faults.append(f"{what}: {line!r} is in {texts}")
        world.faults += [f"{what}: left {path.name}" for path in world.daemon.folder.glob(f".{self.target}.*")]
        for path in world.daemon.folder.glob(f".{self.target}.*"):
            path.unlink()


class Reexec(Order):
    name = "reexec"

    def act(self, world: World) -> int:
        return world.ctl("reexec")


def orders(targets: Sequence[str]) -> list[Order]:
    found: list[Order] = []
    for target in targets:
        match target:
            case "sleeper" | "idle":
                found += [Wake(target), Stop(target, "asleep"), Restart(target, "asleep"), Sleep(target, "stopped")]
            case "sessions":
                found += [Wake(target, ends=False), StopKeeping(target), StartKept(target), RestartSessions(target)]
            case "writer":
                found.append(Reopen(target))
            case "trap":
                found.append(Trap())
        if target not in ENDS:
            found += [Stop(target), Start(target), Restart(target)]
        if target in ("plain", "notify", "sessions"):
            found.append(Sleep(target))
        if target not in ENDS | {"mod"}:  # which have no process
            found += [Crash(target), Loss(target)]
    return [*found, Apply(), Reexec(), Loss()]
