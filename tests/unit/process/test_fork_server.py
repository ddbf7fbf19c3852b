"""The fork server: who is forked by it, what they share, and what becomes of it when it is hurt or idle."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest

from supervisor.errors import StepError
from supervisor.linux.clone import fork_sibling
from supervisor.loop.loop import Loop
from supervisor.process import fork_server as module
from supervisor.process.children import Children, Exit
from supervisor.process.fork_server import ForkServer
from tests.unit.waiting import checked_loop, read_until, run_until, wait_until


class Counting:
    """A child says whose child it is, what was shared and which descriptors it has, and ends with status 7."""

    def __init__(self) -> None:
        self.shared: list[str] = []

    def share(self, key: str, data: bytes) -> None:
        self.shared.append(f"{key}={data.decode()}")

    def run_child(self, fd: int) -> None:
        numbers = sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}"))
        os.write(fd, f"{os.getpid()} {os.getppid()} {self.shared} {numbers} {os.getsid(0)}\n".encode())
        os._exit(7)


class Owner:
    def __init__(self) -> None:
        self.ends: dict[int, Exit] = {}

    def died(self, pid: int) -> None:
        pass

    def reaped(self, pid: int, exit: Exit) -> None:
        self.ends[pid] = exit


class World:
    def __init__(self, loop: Loop, stays: bool = False) -> None:
        self.loop = loop
        self.orphans: list[int] = []
        self.children = Children(lambda pid, exit: self.orphans.append(pid))
        loop.on_signal(signal.SIGCHLD, self.children.reap)
        self.owner = Owner()
        self.fork_server = ForkServer(loop, self.children, Counting, stays)

    def ask(self, key: str = "", data: str = "") -> tuple[socket.socket, list[int | StepError]]:
        """Give an order; return our end of a pair of sockets, and a list for the result."""
        results: list[int | StepError] = []

        def take(result: int | StepError) -> None:
            if isinstance(result, int):
                self.children.register(result, self.owner)
            results.append(result)

        ours, theirs = socket.socketpair()
        with theirs:
            self.fork_server.fork(theirs.fileno(), take, key, data.encode if key else None)
        return ours, results

    def fork(self, key: str = "", data: str = "") -> list[str]:
        """Return the message of a child, which is reaped."""
        ours, results = self.ask(key, data)
        with ours:
            run_until(self.loop, lambda: results)
            pid = results[0]
            if isinstance(pid, StepError):
                raise pid
            said = read_until(ours.fileno(), lambda data: data.endswith(b"\n")).decode()
        run_until(self.loop, lambda: pid in self.owner.ends)
        assert self.owner.ends[pid] == Exit(status=7)
        assert said.split()[0] == str(pid)
        return said.rstrip("\n").split(" ", 2)

    @property
    def pid(self) -> int:
        return self.fork_server._pid

    def close(self) -> None:
        self.fork_server.close()
        run_until(self.loop, lambda: not self.children.pids())


@pytest.fixture
def world() -> Iterator[World]:
    with checked_loop() as loop:
        world = World(loop)
        yield world
        world.close()
        assert world.orphans == []


def test_what_it_forks_is_a_child_of_ours(world: World) -> None:
    said = world.fork()
    assert said[1] == str(os.getpid())
    assert str(world.pid) not in said[:2]
    first = world.pid
    world.fork()
    assert world.pid == first


def test_a_child_has_nothing_but_what_it_is_given(world: World) -> None:
    with open("/dev/null") as _ours:
        said = world.fork()[2]
    numbers = said.partition("[] ")[2].partition("]")[0].strip("[").split(", ")
    assert set(numbers) <= {"0", "1", "2", "3", "4"}  # the last two: its own, and the folder that is read


def test_what_is_shared_is_made_once_and_for_all_who_come_later(world: World) -> None:
    assert "[] " in world.fork()[2]
    assert "['a=one'] " in world.fork("a", "one")[2]
    assert "['a=one'] " in world.fork("a", "other")[2]
    assert "['a=one', 'b=two'] " in world.fork("b", "two")[2]


def test_with_too_much_shared_it_begins_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SHARED", 1)
    for key in "abc":
        said = world.fork(key, "x")[2]
    assert "['c=x'] " in said


def test_one_that_was_killed_is_replaced(world: World) -> None:
    world.fork("a", "one")
    first = world.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: _state(first) == "Z")
    assert "['a=one'] " in world.fork("a", "one")[2]  # told again
    assert world.pid != first


def test_one_that_was_killed_and_reaped_is_replaced(world: World) -> None:
    world.fork()
    first = world.pid
    os.kill(first, signal.SIGKILL)
    run_until(world.loop, lambda: first not in world.children.pids())
    world.fork()
    assert world.pid != first


def test_one_that_is_killed_after_a_fork_does_not_fork_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two children would share the socket, and the one that nobody knows could become the service."""
    fork = fork_sibling

    def fork_and_end() -> int:
        pid = fork()
        if pid:
            os.kill(os.getpid(), signal.SIGKILL)
        return pid

    monkeypatch.setattr(module, "fork_sibling", fork_and_end)
    with pytest.raises(StepError, match="cannot fork: what was to do it has ended"):
        world.fork()
    monkeypatch.undo()
    run_until(world.loop, lambda: world.orphans)
    world.fork()
    assert len(world.orphans) == 1
    world.orphans.clear()


def test_one_that_hangs_is_not_waited_for_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.fork()
    monkeypatch.setattr(module, "FORK_TIMEOUT", 0.1)
    os.kill(world.pid, signal.SIGSTOP)
    wait_until(lambda: _state(world.pid) == "T")
    with pytest.raises(StepError, match="cannot fork: not done within"):
        world.fork()
    monkeypatch.undo()
    world.fork()


def test_the_loop_goes_on_while_it_is_slow(world: World) -> None:
    world.fork()
    os.kill(world.pid, signal.SIGSTOP)
    wait_until(lambda: _state(world.pid) == "T")
    begun = time.monotonic()
    orders = [world.ask() for _ in range(3)]
    passed: list[float] = []
    world.loop.call_later(0.0, lambda: passed.append(time.monotonic()))
    run_until(world.loop, lambda: passed)
    assert passed[0] - begun < module.FORK_TIMEOUT / 2
    assert world.fork_server.is_busy
    os.kill(world.pid, signal.SIGCONT)
    run_until(world.loop, lambda: all(results for _ours, results in orders))
    pids = [results[0] for _ours, results in orders]
    run_until(world.loop, lambda: all(pid in world.owner.ends for pid in pids))
    assert not world.fork_server.is_busy
    for ours, _results in orders:
        ours.close()


def test_a_child_that_ends_before_its_number_is_known_has_its_owner(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no orphan, which would be reaped, and its number given to another process."""
    fork = fork_sibling

    def fork_and_wait() -> int:
        pid = fork()
        if pid:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
        return pid

    monkeypatch.setattr(module, "fork_sibling", fork_and_wait)
    ours, results = world.ask()
    run_until(world.loop, lambda: results)
    run_until(world.loop, lambda: world.owner.ends)
    assert list(world.owner.ends) == results
    assert world.orphans == []
    ours.close()


def test_orders_behind_one_that_fails_go_to_the_next_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.fork()
    os.kill(world.pid, signal.SIGSTOP)
    wait_until(lambda: _state(world.pid) == "T")
    monkeypatch.setattr(module, "FORK_TIMEOUT", 0.1)
    late, late_results = world.ask()
    monkeypatch.undo()
    other, results = world.ask()
    run_until(world.loop, lambda: late_results and results)
    assert isinstance(late_results[0], StepError)
    assert isinstance(results[0], int)
    run_until(world.loop, lambda: results[0] in world.owner.ends)
    late.close()
    other.close()


def test_what_it_cannot_do_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module, "fork_sibling", fail)
    with pytest.raises(StepError, match=r"cannot fork: Resource temporarily unavailable \(EAGAIN\)"):
        world.fork()


def test_it_ends_when_there_is_no_work(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", 0.05)
    servers = []
    for _ in range(2):
        ours, results = world.ask()
        servers.append(world.pid)  # it may have ended when the result comes
        with ours:
            run_until(world.loop, partial(bool, results))
        run_until(world.loop, lambda: not world.children.pids())
    assert 0 not in servers
    assert servers[0] != servers[1]


def test_one_that_stays_does_not_end_without_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", 0.0)
    with checked_loop() as loop:
        world = World(loop, stays=True)
        world.fork()
        first = world.pid
        passed: list[bool] = []
        loop.call_later(0.05, lambda: passed.append(True))  # one that does not stay would have ended in that time
        run_until(loop, lambda: passed)
        world.fork()
        assert world.pid == first
        world.close()


def test_signals_of_a_terminal_are_not_for_it(world: World) -> None:
    world.fork()
    assert os.getsid(world.pid) == world.pid != os.getsid(0)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
