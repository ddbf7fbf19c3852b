"""A unit written down and made again: nothing that the next spawnd needs is forgotten."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.definitions.report import SharedValues
from supervisor.definitions.service import Descriptor, Service
from supervisor.lifecycle.ended import Ended
from supervisor.lifecycle.life import Life, State
from supervisor.linux.open_files import identity
from supervisor.log.output import WorkerOutputs
from supervisor.loop.loop import Loop
from supervisor.manager.depot import Depot
from supervisor.manager.launcher import Host
from supervisor.manager.pending import Pending
from supervisor.manager.records import numbers, store_record, unit_record
from supervisor.manager.restore import restore
from supervisor.manager.resume import Inherited
from supervisor.manager.runtime import RuntimeFolder
from supervisor.manager.unit import Unit
from supervisor.notify.receiver import Receiver
from supervisor.notify.sender import Sender
from supervisor.notify.store import Stored
from supervisor.process.cgroup import Leaf, Subtree
from supervisor.process.descriptors import Opened
from supervisor.process.run import Role, Run
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import checked_loop

SPEC = Descriptor("stream", name="web", path="/nowhere/web")
LOG = Descriptor("file", name="stdout", path="/nowhere/log", access="a")
SERVICE = Service("web", exec="/bin/web", fd=(SPEC,), stdout=LOG, fdstore_max=9)

# every attribute of a unit: in which keys of the record it is, or why it is in none
UNIT = {
    "cgroup": {"cgroup"},
    "ended": {"ended"},
    "ended_clean": {"ended_clean"},
    "internal": {"internal"},
    "last_exit": {"last_exit"},
    "life": {"life"},
    "oom_kills": {"oom_kills"},
    "others": {"others"},
    "pending": {"next"},
    "receiver": {"receiver"},
    "removed": {"removed"},
    "run": {"pid", "started", "run"},
    "sessions": {"sessions"},
    "status_text": {"status_text"},
    "store": {"store"},
    "table": {"table"},
    "feed": "is made of the outputs that there are",
    "obstacle": "follows from the other units",
    "ignored": "is a number for the log",
    "ignored_until": "is a time for the log",
    "service": "has a record of its own, which changes more seldom",
    "timer": "follows from the life",
    "waits": "follows from the other units",
}
RUN = {
    "pid": {"pid"},
    "started": {"started"},
    "role": {"run"},
    "answer": "is read once the function has ended, and then it is no run any more",
    "error_fd": {"run"},
    "ready_fd": {"run"},
    "pidfd": {"run"},
    "netns": "is where the process is, which it tells itself",
    "failure": {"run"},
}
OPENED = {"fd": 0, "inode": 2, "spec": "is in the definition"}
STORED = {"name": 0, "polled": 1, "fd": 2, "file": 3}
PENDING = {"service", "opened"}


class World:
    """Two loops, so that what is made again is nothing but that.  Owns every descriptor that comes to be."""

    def __init__(self, loop: Loop, next_loop: Loop, folder: Path) -> None:
        self.folder = folder
        self.unit = Unit(SERVICE, loop)
        self.next_loop = next_loop
        self.outputs = WorkerOutputs(loop)
        self._receivers: list[Receiver] = []

    def open(self) -> int:
        return os.open(self.folder / "file", os.O_CREAT | os.O_RDWR)

    def receiver(self) -> Receiver:
        self._receivers.append(Receiver.bind(str(self.folder / "socket"), os.geteuid()))
        return self._receivers[-1]

    def close(self) -> None:
        for receiver in self._receivers:
            receiver.close()

    def record(self) -> dict[str, Any]:
        """As it is read: what is in the store has been collected from other lines."""
        written = unit_record(self.unit, self.outputs.kept("web"))
        stored = store_record(self.unit, self.unit.store.stored()).get("stored")
        again: dict[str, Any] = json.loads(json.dumps(written | ({"store": stored} if stored else {})))
        return again

    def again(self, record: dict[str, Any]) -> tuple[Unit, WorkerOutputs]:
        outputs = WorkerOutputs(self.next_loop)
        runtime = RuntimeFolder(str(self.folder))
        host = Host(True, 1024, runtime, outputs, Subtree("/sys/fs/cgroup/x"), Depot(self.next_loop, Sender(""), {}))
        unit = Unit(SERVICE, self.next_loop, internal=record.get("internal", False))
        restore(unit, record, Inherited(record), host, SharedValues())
        return unit, outputs


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    before = open_numbers()
    with checked_loop() as loop, checked_loop() as next_loop:
        world = World(loop, next_loop, tmp_path)
        yield world
        world.close()
    for fd in open_numbers() - before:
        os.close(fd)


def test_every_attribute_is_written_down_or_has_a_reason() -> None:
    assert set(Unit.__slots__) == UNIT.keys()
    assert {field.name for field in fields(Run)} == RUN.keys()
    assert {field.name for field in fields(Opened)} == OPENED.keys()
    assert {field.name for field in fields(Stored)} == STORED.keys()
    assert set(Pending.__slots__) == PENDING


def test_one_that_never_started_says_so_and_nothing_else(world: World) -> None:
    world.unit.life = Life()
    assert world.record() == {"life": {}}
    again, _ = world.again({"life": {}})
    for name in UNIT.keys() - {"store", "table", "service", "receiver"}:
        assert getattr(again, name) == getattr(world.unit, name), name
    assert (len(again.store), len(again.table), again.receiver) == (0, 0, None)


CHANGES: dict[str, Callable[[World], object]] = {
    "cgroup": lambda world: Leaf(Subtree("/sys/fs/cgroup/x"), "/sys/fs/cgroup/x/web"),
    "ended": lambda world: Ended(signum=9, signal="KILL", out_of_memory=True),
    "ended_clean": lambda world: False,
    "internal": lambda world: True,
    "last_exit": lambda world: "exited with status 1",
    "life": lambda world: Life(State.BACKOFF, 5.0, "x", deadline=7.0, failures=3),
    "oom_kills": lambda world: 2,
    "others": lambda world: {10: 99, 11: 98},
    "pending": lambda world: Pending(replace(SERVICE, nice=5), {"3": Opened(SPEC, world.open(), (1, 2))}),
    "receiver": lambda world: world.receiver(),
    "removed": lambda world: True,
    "run": lambda world: Run(4, Role.START, world.open(), world.open(), b"\xff{", 77, world.open()),
    "sessions": lambda world: {7, 9},
    "status_text": lambda world: "ü\n",
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_each_comes_back_as_it_was(world: World, name: str) -> None:
    value = CHANGES[name](world)
    setattr(world.unit, name, value)
    record = world.record()
    assert record.keys() == UNIT[name] | {"life"}  # type: ignore[operator]
    again, _ = world.again(record)
    found = getattr(again, name)
    match value:
        case Leaf():
            assert (found.path, found._subtree.path) == (value.path, "/sys/fs/cgroup/x")
        case Pending():
            assert (found.service, found.opened) == (value.service, value.opened)
        case Receiver():
            assert record["receiver"] == value.fileno(), "it is listened to by whoever resumes the unit"
        case _:
            assert found == value


def test_those_with_a_shape_of_their_own_are_all_tried() -> None:
    assert UNIT.keys() == CHANGES.keys() | {"store", "table"} | {n for n, why in UNIT.items() if isinstance(why, str)}


def test_a_table_comes_back(world: World) -> None:
    ready = {"3": Opened(SPEC, socket.socket(socket.AF_UNIX).detach(), (8, 9)), "stdout": Opened(LOG, world.open())}
    world.unit.table.adopt(SERVICE, dict(ready))
    record = world.record()
    assert record["table"]["3"] == [ready["3"].fd, identity(ready["3"].fd), [8, 9]]
    again, _ = world.again(record)
    assert dict(again.table) == ready


def test_what_a_definition_does_not_want_is_left_where_it_is(world: World) -> None:
    """By another version, which had more slots: closed by who knows all numbers."""
    fd = world.open()
    record = {"life": {}, "table": {"17": [fd, identity(fd), None]}}
    os.set_inheritable(fd, True)
    again, _ = world.again(record)
    assert len(again.table) == 0
    assert os.get_inheritable(fd)
    assert numbers(record) == {fd}


def test_a_store_comes_back_in_its_order(world: World) -> None:
    one, other = socket.socketpair()
    memfd = os.memfd_create("x")
    world.unit.store.add("b", [one.detach(), other.detach()], True, 9)
    world.unit.store.add("a", [memfd], True, 9)
    record = world.record()
    again, _ = world.again(record)
    assert again.store.stored() == world.unit.store.stored()
    assert [stored.polled for stored in again.store.stored()] == [True, True, False]


def test_streams_come_back(world: World) -> None:
    world.outputs.stream("web")
    record = world.record()
    _, outputs = world.again(record)
    assert outputs.kept("web") == world.outputs.kept("web")


def test_all_numbers_are_told_once(world: World) -> None:
    unit = world.unit
    opened = open_numbers()
    unit.run = Run(4, Role.MAIN, world.open(), world.open(), pidfd=world.open())
    unit.table.adopt(SERVICE, {"3": Opened(SPEC, world.open(), (1, 2)), "stdout": Opened(LOG, world.open())})
    unit.pending = Pending(SERVICE, {"stdout": Opened(LOG, world.open())})
    unit.store.add("x", [os.eventfd(0), os.memfd_create("x")], True, 9)
    unit.receiver = world.receiver()
    world.outputs.stream("web")
    assert numbers(world.record()) == open_numbers() - opened
    assert numbers({"life": {}}) == set()


def test_what_comes_over_an_exec_is_no_child_s(world: World) -> None:
    unit = world.unit
    unit.run = Run(4, Role.MAIN, world.open(), world.open(), pidfd=world.open())
    unit.table.adopt(SERVICE, {"3": Opened(SPEC, world.open(), (1, 2)), "stdout": Opened(LOG, world.open())})
    unit.pending = Pending(SERVICE, {"stdout": Opened(LOG, world.open())})
    unit.store.add("x", [os.eventfd(0), os.memfd_create("x")], True, 9)
    world.outputs.stream("web")
    record = world.record()
    for fd in numbers(record):
        os.set_inheritable(fd, True)
    world.again(record)
    assert not any(os.get_inheritable(fd) for fd in numbers(record))


def test_a_descriptor_that_is_closed_has_no_identity_and_harms_nobody(world: World) -> None:
    fd = world.open()
    world.unit.table.adopt(SERVICE, {"stdout": Opened(LOG, fd)})
    os.close(fd)
    assert world.record()["table"]["stdout"] == [fd, "", None]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"life": {"state": "asleep"}},
        {"life": {}, "table": {"3": None}},
        {"life": {}, "store": [["x"]]},
        {"life": {}, "pid": 1},
        {"life": {}, "next": {"service": {"name": "web", "colour": "red"}, "table": {}}},
    ],
)
def test_what_another_version_says_is_an_error(world: World, record: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, IndexError)):
        world.again(record)
