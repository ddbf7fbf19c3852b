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
from supervisor.definitions.service import Backoff, Descriptor, Service
from supervisor.lifecycle.life import Cause, Ended, Idleness, Life, State, Step, Then
from supervisor.linux.open_files import identity
from supervisor.log.output import WorkerOutputs
from supervisor.loop.loop import Loop
from supervisor.manager.host import HostFacts
from supervisor.manager.runtime import RuntimeFolder
from supervisor.manager.unit import Pending, Unit
from supervisor.notify.receiver import Receiver
from supervisor.notify.service_side import Sender
from supervisor.notify.store import Stored
from supervisor.process.cgroup import Leaf, Subtree
from supervisor.process.held_descriptors import Opened
from supervisor.process.run import Role, Run
from supervisor.state import state as state_module
from supervisor.state.state import read_state
from supervisor.systemd.reports import SystemdStore
from supervisor.takeover.after_exec import Inherited, numbers
from supervisor.takeover.records import FIELDS, HELD, restore, store_record, unit_record
from tests.unit.closing import PatientCloser, bind_receiver
from tests.unit.process.forked import open_numbers
from tests.unit.program import PROGRAM
from tests.unit.waiting import checked_loop

SPEC = Descriptor("stream", name="web", path="/nowhere/web")
LOG = Descriptor("file", name="stdout", path="/nowhere/log", access="a")
BEFORE = Path(__file__).parent / "state_before.jsonl"
FD_BEFORE = 906  # the number of every descriptor in there
SERVICE = Service("web", exec="/bin/web", fd=(SPEC,), stdout=LOG, fdstore_max=9)

NOT_SAVED = {
    "feed": "is made of the outputs that there are",
    "obstacle": "follows from the other units",
    "ignored": "is a number for the log",
    "ignored_until": "is a time for the log",
    "failure_lines": "is about the log",
    "session_limit": "follows from the table of sessions, and begins with the stop signal again",
    "service": "has a record of its own, which changes more seldom",
    "timer": "follows from the life",
    "rest": "`ended_clean` tells that there is one, and it is made anew",
    "visit": "is of clients that may have been served by the next spawnd: it looks again",
    "left": "is of clients that may have been served by the next spawnd: it looks again",
    "suspects": "is of datagrams that may have been read since",
    "is_looked_at": "is about a look that the next spawnd does not take",
    "is_suspicious": "is of datagrams that may have been read since",
    "waits": "follows from the other units",
}
SAVED = {field.attribute: {field.key} for field in FIELDS} | {name: set(keys) for name, keys in HELD.items()}
RUN = {
    "pid": {"pid"},
    "started": {"started"},
    "role": {"run"},
    "in_doubt": {"run"},
    "owed": {"run"},
    "has_run": "is learnt at the end of the report, and of a process that ends with it once that is dead",
    "answer": "is read once the function has ended, and then it is no run any more",
    "error_fd": {"run"},
    "report_fd": {"run"},
    "files": {"run"},
    "ready_fd": {"run"},
    "pidfd": {"run"},
    "netns": "is where the process is, which it tells itself",
    "failure": {"run"},
    "output_fd": {"run"},
    "output": {"run"},
    "left": "is counted when it is dead, and then it is no run any more",
    "number": {"run"},
    "notices": "are told as soon as the set-up has ended",
}
OPENED = {"fd": 0, "inode": 2, "spec": "is in the definition", "port": "in a table of ports, where the kernel chose"}
STORED = {"name": 0, "polled": 1, "fd": 2, "file": 3}
OF_THE_SERVICE = {"trusted"}  # whether it is a worker's
PENDING = {"service", "opened"}


class World:
    """Two loops, so that what is made again is nothing but that.  Owns every descriptor that comes to be."""

    def __init__(self, loop: Loop, next_loop: Loop, folder: Path) -> None:
        self.folder = folder
        self.unit = Unit(SERVICE, loop, PatientCloser())
        self.next_loop = next_loop
        self.outputs = WorkerOutputs(loop, PatientCloser().close)
        self._receivers: list[Receiver] = []

    def open(self) -> int:
        return os.open(self.folder / "file", os.O_CREAT | os.O_RDWR)

    def receiver(self) -> Receiver:
        self._receivers.append(bind_receiver(self.folder / "socket"))
        return self._receivers[-1]

    def close(self) -> None:
        for receiver in self._receivers:
            receiver.close()

    def record(self) -> dict[str, Any]:
        """As it is read: what is in the store has been collected from other lines."""
        written = unit_record(self.unit, self.outputs.saved_streams("web"))
        stored = store_record(self.unit, self.unit.store.stored()).get("stored")
        again: dict[str, Any] = json.loads(json.dumps(written | ({"store": stored} if stored else {})))
        return again

    def again(self, record: dict[str, Any], service: Service = SERVICE) -> tuple[Unit, WorkerOutputs]:
        outputs = WorkerOutputs(self.next_loop, PatientCloser().close)
        runtime = RuntimeFolder(str(self.folder))
        systemd_store = SystemdStore(self.next_loop, Sender(""), {})
        subtree, closer = Subtree("/sys/fs/cgroup/x"), PatientCloser()
        host = HostFacts(True, 1024, runtime, outputs, subtree, systemd_store, closer, PROGRAM)
        unit = Unit(service, self.next_loop, PatientCloser(), internal=record.get("internal", False))
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
    assert set(Unit.__slots__) == SAVED.keys() | NOT_SAVED.keys()
    assert not SAVED.keys() & NOT_SAVED.keys()
    assert {field.name for field in fields(Run)} == RUN.keys()
    assert {field.name for field in fields(Opened)} == OPENED.keys()
    assert set(Stored._fields) == STORED.keys() | OF_THE_SERVICE
    assert set(Pending.__slots__) == PENDING


def test_one_that_never_started_says_so_and_nothing_else(world: World) -> None:
    world.unit.life = Life()
    assert world.record() == {"life": {}}
    again, _ = world.again({"life": {}})
    for name in set(Unit.__slots__) - {"store", "table", "service", "receiver"}:
        assert getattr(again, name) == getattr(world.unit, name), name
    assert (len(again.store), len(again.table), again.receiver) == (0, 0, None)


CHANGES: dict[str, Callable[[World], object]] = {
    "cgroup": lambda world: Leaf(Subtree("/sys/fs/cgroup/x"), "/sys/fs/cgroup/x/web"),
    "call_ended": lambda world: Ended(status=1, cause="why", function="stop"),
    "ended": lambda world: Ended(signum=9, signal="KILL", out_of_memory=True),
    "ended_clean": lambda world: False,
    "first_started": lambda world: 99,
    "frozen": lambda world: {12: 97},
    "has_lost_children": lambda world: True,
    "idle": lambda world: Idleness(since=5.5),
    "says_busy": lambda world: True,
    "internal": lambda world: True,
    "is_sought": lambda world: True,
    "last_call": lambda world: "stop failed: why",
    "last_exit": lambda world: "exited with status 1",
    "disconnected": lambda world: "2 clients of stream /run/x",
    "flushed": lambda world: 2,
    "life": lambda world: Life(State.BACKOFF, 5.0, "x", deadline=7.0, failures=3),
    "notify_path": lambda world: "/run/notify/web.x/s",
    "oom_kills": lambda world: 2,
    "mark": lambda world: "0123abcd",
    "check_output": lambda world: ("one", "two"),
    "leftover_pids": lambda world: {10: 99, 11: 98},
    "pending": lambda world: Pending(replace(SERVICE, nice=5), {3: Opened(SPEC, world.open(), (1, 2))}),
    "receiver": lambda world: world.receiver(),
    "removed": lambda world: True,
    "run": lambda world: Run(4, Role.START, world.open(), world.open(), b"\xff{", 77, world.open()),
    "stale": lambda world: "stream '/run/x' was taken; the old socket stays",
    "status_text": lambda world: "ü\n",
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_each_comes_back_as_it_was(world: World, name: str) -> None:
    value = CHANGES[name](world)
    setattr(world.unit, name, value)
    record = world.record()
    assert record.keys() == SAVED[name] | {"life"}
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
    assert SAVED.keys() == CHANGES.keys() | {"store", "table"}


def test_a_table_comes_back(world: World) -> None:
    ready = {3: Opened(SPEC, socket.socket(socket.AF_UNIX).detach(), (8, 9)), 1: Opened(LOG, world.open())}
    world.unit.table.adopt(SERVICE, dict(ready))
    record = world.record()
    assert record["table"]["3"] == [ready[3].fd, identity(ready[3].fd), [8, 9]]
    again, _ = world.again(record)
    assert dict(again.table) == ready


def test_a_port_that_the_kernel_chose_comes_back(world: World) -> None:
    """It is not asked for again, as a process of the service may hang with the socket's lock."""
    service = Service("web", fd=(Descriptor("tcp", host="127.0.0.1"),))
    world.unit.service = service
    world.unit.table.open_missing(service)
    port = dict(world.unit.table)[3].port
    assert port > 0
    again, _ = world.again(world.record())
    assert dict(again.table)[3].port == port


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
    assert outputs.saved_streams("web") == world.outputs.saved_streams("web")


def test_all_numbers_are_told_once(world: World) -> None:
    unit = world.unit
    opened = open_numbers()
    unit.run = Run(4, Role.MAIN, world.open(), world.open(), pidfd=world.open())
    unit.table.adopt(SERVICE, {3: Opened(SPEC, world.open(), (1, 2)), 1: Opened(LOG, world.open())})
    unit.pending = Pending(SERVICE, {1: Opened(LOG, world.open())})
    unit.store.add("x", [os.eventfd(0), os.memfd_create("x")], True, 9)
    unit.receiver = world.receiver()
    world.outputs.stream("web")
    assert numbers(world.record()) == open_numbers() - opened
    assert numbers({"life": {}}) == set()


def test_files_that_a_process_has_opened_come_over_an_exec(world: World) -> None:
    """To close one might take its server, for which an exec would wait."""
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(2)]
    world.unit.run = Run(100, files=fds)
    record = world.record()
    assert set(fds) <= numbers(record)
    for fd in fds:
        os.set_inheritable(fd, True)
    run = Inherited(record).run()
    assert run is not None
    assert run.files == fds
    assert not any(os.get_inheritable(fd) for fd in fds)


def test_what_comes_over_an_exec_is_no_child_s(world: World) -> None:
    unit = world.unit
    unit.run = Run(4, Role.MAIN, world.open(), world.open(), pidfd=world.open())
    unit.table.adopt(SERVICE, {3: Opened(SPEC, world.open(), (1, 2)), 1: Opened(LOG, world.open())})
    unit.pending = Pending(SERVICE, {1: Opened(LOG, world.open())})
    unit.store.add("x", [os.eventfd(0), os.memfd_create("x")], True, 9)
    world.outputs.stream("web")
    record = world.record()
    for fd in numbers(record):
        os.set_inheritable(fd, True)
    world.again(record)
    assert not any(os.get_inheritable(fd) for fd in numbers(record))


def test_a_descriptor_that_is_closed_has_no_identity_and_harms_nobody(world: World) -> None:
    fd = world.open()
    world.unit.table.adopt(SERVICE, {1: Opened(LOG, fd)})
    os.close(fd)
    assert world.record()["table"]["stdout"] == [fd, "", None]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"life": {"state": "dormant"}},
        {"life": {}, "table": {"3": None}},
        {"life": {}, "store": [["x"]]},
        {"life": {}, "pid": 1},
        {"life": {}, "next": {"service": {"name": "web", "colour": "red"}, "table": {}}},
    ],
)
def test_what_another_version_says_is_an_error(world: World, record: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, IndexError)):
        world.again(record)


SERVICE_BEFORE = Service(
    "web", file="/etc/spawnd/services.d/web.lua", line=3, exec="/bin/web",
    fd=(SPEC, Descriptor("tcp", host="127.0.0.1")), stdout=LOG, fdstore_max=9, env={"A": "b"}, backoff=Backoff(max=9.0),
    functions=("start",), source_digest="0123",
)  # fmt: skip
LIFE_BEFORE = Life(
    State.STOPPING, 5.5, "stop requested", Cause.STOP, "other", "detail", 7.5, 8.5, 4.5, 1.5, 2.5, 3.5, Step.READY,
    Then.START, killed=True, set_up=True, final=True, failures=3, restarts=2, starts=9,
)  # fmt: skip
ENDED_BEFORE = Ended(signum=9, signal="KILL", core=True, out_of_memory=True, function="start", cause="why")
ATTRIBUTES_BEFORE = {
    "call_ended": None,  # of a later version, as is the next one
    "check_output": ("one", "two"),
    "disconnected": "2 clients",
    "ended": ENDED_BEFORE,
    "ended_clean": False,
    "first_started": 0,
    "flushed": 0,
    "frozen": None,
    "has_lost_children": False,
    "idle": None,
    "says_busy": False,
    "internal": False,
    "is_sought": False,
    "last_call": "",
    "last_exit": "killed by KILL",
    "leftover_pids": {10: 99, 11: 98},
    "mark": "0123abcd",
    "notify_path": "/run/spawnd/notify/web.x/s",
    "oom_kills": 2,
    "removed": True,
    "stale": "",
    "status_text": "ü\n",
}


def test_what_the_version_before_has_written_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are saved never change.  `state_before.jsonl` was written when most were those of attributes."""
    monkeypatch.setattr(state_module, "_boot", lambda: "BOOT")
    monkeypatch.setattr(state_module, "_pids", lambda: 0)
    os.dup2(world.open(), FD_BEFORE, inheritable=False)
    state = read_state(BEFORE.read_bytes())
    assert (state.damaged, state.ending, state.written, state.sources) == (0, True, 1234, {"0123": "return {}"})
    found = SharedValues().service(state.services["web"])
    assert found == SERVICE_BEFORE
    streams = state.units["web"].pop("streams")
    assert [fd for fd, _identity in streams] == [FD_BEFORE] * 3
    unit, _ = world.again(state.units["web"], found)
    assert unit.life == LIFE_BEFORE
    assert {field.attribute: getattr(unit, field.attribute) for field in FIELDS} == ATTRIBUTES_BEFORE
    assert unit.run == Run(4, Role.START, FD_BEFORE, FD_BEFORE, b"\xff{", 77, FD_BEFORE)
    assert unit.cgroup is not None
    assert unit.cgroup.path == "/sys/fs/cgroup/x/web"
    web = Opened(SPEC, FD_BEFORE, (1, 2))
    tcp = SERVICE_BEFORE.fd[1]
    assert dict(unit.table) == {
        3: web, 4: Opened(tcp, FD_BEFORE, None, 40001), 1: Opened(LOG, FD_BEFORE, (3, 4))
    }  # fmt: skip
    assert unit.pending is not None
    assert (unit.pending.service, unit.pending.opened) == (replace(SERVICE_BEFORE, nice=5), {3: web})
    assert [stored.name for stored in unit.store.stored()] == ["b"]
