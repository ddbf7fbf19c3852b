"""A worker's end of the descriptor store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from supervisor.loop.loop import Loop
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import checked_loop, child_process, run_until, turn, wait_readable
from tests.unit.workers.spawnd import FakeSpawnd
from workers.runtime import store as module
from workers.runtime.store import GetHoldings, StoreClient

MORE_THAN_THE_QUEUE = 40


class World:
    """A worker that holds memfds by name, and spawnd, on one loop."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop = loop
        self.held: dict[str, int] = {}
        self.spawnd = FakeSpawnd(loop, folder / "socket")
        self.client = StoreClient(loop, str(folder / "socket"), self.everything)

    def everything(self) -> list[tuple[str, GetHoldings]]:
        return [(name, partial(self.holdings, name)) for name in self.held]

    def holdings(self, name: str) -> Sequence[tuple[Sequence[int], bool]]:
        return [([self.held[name]], False)] if name in self.held else []

    def keep(self, name: str) -> None:
        self.held[name] = os.memfd_create(name)
        self.client.keep(name, [self.held[name]], partial(self.holdings, name), polled=False)

    def drop(self, name: str) -> None:
        os.close(self.held.pop(name))
        self.client.drop(name)

    def settled(self) -> bool:
        return sorted(self.spawnd.names()) == sorted(self.held) and not self.client.is_behind

    def close(self) -> None:
        self.client.close()
        self.spawnd.close()
        for fd in self.held.values():
            os.close(fd)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(module, "PATIENCE_MS", 50)
    with checked_loop() as loop:
        before = open_numbers()
        world = World(loop, tmp_path)
        yield world
        world.close()
        turn(loop, 3)
        assert open_numbers() == before


def test_what_is_kept_is_spawnds_at_once(world: World) -> None:
    world.keep("a")
    world.spawnd.take()  # as if this process had died after `keep`
    assert world.spawnd.names() == ["a"]
    world.drop("a")
    world.spawnd.take()
    assert world.spawnd.names() == []


def test_a_spawnd_that_hangs_is_waited_for_once(world: World) -> None:
    world.spawnd.hang()
    for number in range(MORE_THAN_THE_QUEUE):
        world.keep(f"n{number}")
    assert world.client.is_behind
    for number in range(0, MORE_THAN_THE_QUEUE, 2):
        world.drop(f"n{number}")
    world.spawnd.hear()
    run_until(world.loop, world.settled)
    world.keep("after")
    assert not world.client.is_behind


def test_room_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_MS", 20_000)

    def read_one_by_one() -> None:
        while world.spawnd.messages < MORE_THAN_THE_QUEUE:
            wait_readable(world.spawnd.fileno())
            world.spawnd.take(1)

    with child_process(read_one_by_one):  # it has the same socket
        for number in range(MORE_THAN_THE_QUEUE):
            world.keep(f"n{number}")
    assert not world.client.is_behind


def test_what_is_new_does_not_wait_until_all_that_was_lost_is_stored_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client is answered when it is stored; and that is at once, where there is a spawnd that reads."""
    monkeypatch.setattr(module, "PATIENCE_MS", 20_000)
    world.spawnd.lose()
    for number in range(MORE_THAN_THE_QUEUE):
        world.keep(f"n{number}")
    world.spawnd.listen()
    world.spawnd.hang()
    run_until(world.loop, lambda: has_no_room(world.client))
    told, tell = os.pipe()

    def read_until_new() -> None:
        receiver = world.spawnd.receiver
        names: list[str] = []
        while "new" not in names:
            wait_readable(receiver.fileno())
            names += [notification.message.name for notification in receiver.receive_nowait(1)]
        os.write(tell, b"x")

    with child_process(read_until_new):
        world.keep("new")
        wait_readable(told)
    for fd in (told, tell):
        os.close(fd)


def has_no_room(client: StoreClient) -> bool:
    """Whether it is connected, and the queue is full."""
    return client._socket is not None and not client._has_room(0)


def test_what_is_dropped_while_there_is_no_room_goes_later(world: World) -> None:
    for number in range(5):
        world.keep(f"n{number}")
    world.spawnd.take()
    world.spawnd.hang()
    for _ in range(MORE_THAN_THE_QUEUE):
        world.client.say("X=1")
    for number in range(3):
        world.drop(f"n{number}")
    world.spawnd.hear()
    run_until(world.loop, world.settled)
    assert set(world.spawnd.said) == {"X=1"}


@pytest.mark.parametrize("idle", [True, False])
def test_after_a_loss_all_is_stored_again(world: World, idle: bool) -> None:
    for number in range(3):
        world.keep(f"n{number}")
    world.spawnd.take()
    world.keep("lost in the queue")
    world.spawnd.lose()
    if idle:
        world.client.say("WATCHDOG=1")  # finds it out
    else:
        world.keep("meanwhile")
        world.drop("n0")
    assert world.client.is_behind
    world.spawnd.store.clear()
    world.spawnd.listen()
    run_until(world.loop, world.settled)


def test_the_end_of_the_spawnd_that_started_it_is_heard(tmp_path: Path) -> None:
    """It is gone before anything more is to be said."""
    begun, begin = os.pipe()
    told, tell = os.pipe()

    def be_worker() -> None:
        with checked_loop() as loop:
            world = World(loop, tmp_path)
            os.write(begin, b"x")
            run_until(loop, lambda: world.client.is_behind)
            os.write(tell, b"x")

    def be_spawnd() -> None:
        if os.fork() == 0:
            try:
                be_worker()
            finally:
                os._exit(0)
        wait_readable(begun)

    with child_process(be_spawnd):
        wait_readable(told)
    for fd in (begun, begin, told, tell):
        os.close(fd)


def test_the_next_spawnd_is_heard_of_at_once(world: World) -> None:
    """Nothing is to be said meanwhile: a connected socket tells of the loss only to who sends."""
    for _ in range(3):
        world.keep(f"n{len(world.held)}")  # is lost in the queue
        world.spawnd.lose()
        world.spawnd.store.clear()
        world.spawnd.listen()
        run_until(world.loop, world.settled)


def test_the_next_spawnd_is_told_what_lasts(world: World) -> None:
    for line in ("READY=1", "STATUS=one", "WATCHDOG=1", "STATUS=two"):
        world.client.say(line)
    world.spawnd.lose()
    world.client.say("STATUS=three")  # finds it out, and nobody hears it
    world.spawnd.listen()
    run_until(world.loop, lambda: len(world.spawnd.said) == 2)
    turn(world.loop, 3)
    assert world.spawnd.said == ["READY=1", "STATUS=three"]


def test_what_is_there_already_is_kept_once(world: World) -> None:
    world.keep("a")
    world.spawnd.take()
    world.spawnd.lose()
    world.client.say("X=1")
    world.spawnd.listen()
    run_until(world.loop, lambda: not world.client.is_behind)
    run_until(world.loop, lambda: world.spawnd.messages >= 2)
    assert world.spawnd.names() == ["a"]


def test_what_was_dropped_while_nobody_was_there(world: World) -> None:
    world.keep("a")
    world.keep("b")
    world.spawnd.take()
    world.spawnd.lose()
    world.drop("a")
    world.spawnd.listen()
    run_until(world.loop, world.settled)
    assert world.spawnd.names() == ["b"]


def test_before_the_end_all_is_stored(world: World) -> None:
    world.spawnd.hang()
    for number in range(MORE_THAN_THE_QUEUE):
        world.keep(f"n{number}")
    world.client.finish()  # nobody reads: it ends all the same
    assert world.client.is_behind


def test_more_than_a_datagram_holds(world: World) -> None:
    fds = [os.memfd_create("x") for _ in range(600)]
    world.spawnd.lose()
    world.client.say("X=1")
    world.held["many"] = fds[0]
    world.client._everything = lambda: [("many", lambda: [(fds, False)])]
    world.spawnd.listen()
    run_until(world.loop, lambda: len(world.spawnd.store) == 600)
    for fd in fds[1:]:
        os.close(fd)


def test_one_name_may_have_more_than_there_is_room_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that were sent are not sent again whenever there is room."""
    monkeypatch.setattr(module, "MAX_DESCRIPTORS", 1)
    fds = [os.memfd_create("x") for _ in range(MORE_THAN_THE_QUEUE)]
    world.spawnd.lose()
    world.client.say("X=1")
    world.held["many"] = fds[0]
    world.client._everything = lambda: [("many", lambda: [(fds, False)])]
    world.spawnd.listen()
    run_until(world.loop, lambda: not world.client.is_behind)
    run_until(world.loop, lambda: len(world.spawnd.store) == len(fds))
    assert world.spawnd.messages == len(fds)
    for fd in fds[1:]:
        os.close(fd)


def test_without_an_address_nothing_happens() -> None:
    with checked_loop() as loop:
        client = StoreClient(loop, "", lambda: [])
        client.keep("a", [0], lambda: [], polled=False)
        client.drop("a")
        client.say("READY=1")
        client.finish()
        assert not client.is_behind
        client.close()
