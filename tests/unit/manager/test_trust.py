"""The senders whose notifications count, and their effects."""

from __future__ import annotations

import os
import signal
import socket
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.definitions.service import Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import Transition
from supervisor.loop.loop import Loop
from supervisor.manager import notifications
from supervisor.manager.notifications import take_notifications
from supervisor.manager.unit import Unit
from supervisor.notify.receiver import MAX_DATAGRAM, Receiver
from supervisor.process.cgroup import Leaf
from supervisor.process.run import Run
from tests.unit.closing import PatientCloser, bind_receiver
from tests.unit.process import cgroups
from tests.unit.process.family import family_with_chosen_pids, next_pid
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import child_process, read_until, wait_exit, wait_readable


class Heard:
    """A unit whose main process is `pid`, and what came of notifications to it."""

    def __init__(self, loop: Loop, receiver: Receiver, pid: int) -> None:
        self.events: list[Callable[..., Transition]] = []
        self.unit = Unit(Service("s", exec="/bin/s", uid=os.geteuid(), fdstore_max=10), loop, PatientCloser())
        self.unit.receiver, self.unit.run = receiver, Run(pid)

    def event(self, unit: Unit, event: Callable[..., Transition], *args: object) -> None:
        self.events.append(event)

    def touch(self, unit: Unit) -> None:
        pass

    def said_busy(self, unit: Unit, is_busy: bool) -> None:
        unit.says_busy = is_busy

    def take(self) -> Heard:
        take_notifications(self.unit, self, 100)
        return self


def send(path: str, data: str, fds: list[int] | None = None) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        sock.sendmsg([data.encode()], rights, 0, path)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = bind_receiver(tmp_path / "socket")
    yield receiver
    receiver.close()


@pytest.fixture
def main() -> Iterator[int]:
    """A main process that leads a session, and says nothing."""
    read_end, write_end = os.pipe()

    def run() -> None:
        os.setsid()
        os.write(write_end, b"x")
        signal.pause()

    with child_process(run) as pid:
        read_until(read_end, lambda data: data)
        yield pid
    os.close(read_end)
    os.close(write_end)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the log."""
    said: list[str] = []
    monkeypatch.setattr(notifications, "notice", lambda text, *args: said.append(text % args))
    return said


def test_a_sender_that_has_ended_may_say_that_it_is_ready_and_alive(loop: Loop, receiver: Receiver, main: int) -> None:
    words = "READY=1\nSTATUS=up\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=1000000"
    with child_process(lambda: send(receiver.path, words)) as pid:
        assert wait_exit(pid) == 0
    heard = Heard(loop, receiver, main).take()
    assert heard.events == [machine.extended, machine.ready, machine.alive]
    assert heard.unit.status_text == "up"


@pytest.mark.parametrize("words", ["FDSTORE=1", "FDSTOREREMOVE=1\nFDNAME=kept", "WATCHDOG=trigger", "RELOADING=1"])
def test_a_sender_that_has_ended_may_say_nothing_that_does_harm(
    loop: Loop, receiver: Receiver, main: int, lines: list[str], words: str
) -> None:
    heard = Heard(loop, receiver, main)
    heard.unit.store.add("kept", [os.memfd_create("x")], False, 10)
    memfd = os.memfd_create("sent")
    with child_process(lambda: send(receiver.path, f"READY=1\n{words}", [memfd])) as pid:
        assert wait_exit(pid) == 0
    heard.take()
    assert heard.events == [machine.ready]
    assert [name for name, _fd in heard.unit.store.entries()] == ["kept"]
    assert "its sender had ended" in lines[0]
    heard.unit.store.clear()
    os.close(memfd)


@pytest.fixture(params=["by a pidfd", "by the time of the message"])
def proof(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the kernel tells whether a sender still has its pid: before Linux 6.5 by the time alone."""
    if request.param != "by a pidfd":
        monkeypatch.setattr("supervisor.notify.receiver._SO_PASSPIDFD", 9999)


@pytest.mark.usefixtures("proof")
@pytest.mark.parametrize("words", ["FDSTORE=1", "FDSTOREREMOVE=1\nFDNAME=kept", "WATCHDOG=trigger"])
@pytest.mark.parametrize("has_descriptor", [True, False])
def test_a_living_helper_in_the_session_is_believed(tmp_path: Path, words: str, has_descriptor: bool) -> None:
    def hear() -> tuple[list[str], list[str]]:
        os.setsid()
        with_loop = Loop(_raise)
        receiver = bind_receiver(tmp_path / "socket")
        heard = Heard(with_loop, receiver, os.getpid())
        heard.unit.store.add("kept", [os.memfd_create("x")], False, 10)
        memfds = [os.memfd_create("sent")] if has_descriptor else []

        def helper() -> None:
            send(receiver.path, words, memfds)
            signal.pause()

        with child_process(helper):
            wait_readable(receiver.fileno())
            heard.take()
        return [event.__name__ for event in heard.events], [name for name, _fd in heard.unit.store.entries()]

    stored = ["stored"] if has_descriptor else []
    assert in_child(hear) == {
        "FDSTORE=1": ([], ["kept", *stored]),
        "FDSTOREREMOVE=1\nFDNAME=kept": ([], []),
        "WATCHDOG=trigger": (["watchdog_missed"], ["kept"]),
    }[words]


@needs_root
@pytest.mark.usefixtures("proof")
@pytest.mark.parametrize("words", ["FDSTORE=1", "FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=kept", "WATCHDOG=trigger"])
@pytest.mark.parametrize("has_descriptor", [True, False])
def test_whoever_has_the_pid_of_a_sender_next_is_not_taken_for_it(
    tmp_path: Path, words: str, has_descriptor: bool
) -> None:
    """The sender has ended, and a process of the service has got its pid."""

    def hear() -> tuple[list[str], list[str], int]:
        os.setsid()
        receiver = bind_receiver(tmp_path / "socket")
        heard = Heard(Loop(_raise), receiver, os.getpid())
        heard.unit.store.add("kept", [os.memfd_create("x")], False, 10)
        memfds = [os.memfd_create("sent")] if has_descriptor else []
        before = len(os.listdir("/proc/self/fd"))
        with child_process(lambda: send(receiver.path, f"READY=1\n{words}", memfds)) as pid:
            assert wait_exit(pid) == 0
        time.sleep(3 / os.sysconf("SC_CLK_TCK"))  # as long as nobody gets round all pids
        next_pid(pid)
        with child_process(signal.pause) as another:
            assert another == pid
            heard.take()
        names = [name for name, _fd in heard.unit.store.entries()]
        return [event.__name__ for event in heard.events], names, len(os.listdir("/proc/self/fd")) - before

    assert family_with_chosen_pids(lambda _family: hear()) == (["ready"], ["kept"], 0)


def _raise(error: BaseException) -> None:
    raise error


def test_a_living_process_of_another_session_is_not_believed(
    loop: Loop, receiver: Receiver, main: int, lines: list[str]
) -> None:
    send(receiver.path, "READY=1")
    heard = Heard(loop, receiver, main).take()
    assert not heard.events
    assert lines == [f"s: 1 notification ignored, the last of pid {os.getpid()}: it is not of this service"]


@needs_root
def test_a_helper_in_a_session_of_its_own_is_believed_in_the_service_s_cgroup(
    loop: Loop, receiver: Receiver, main: int
) -> None:
    told_read, told_write = os.pipe()

    def helper() -> None:
        os.setsid()
        Path(leaf.path, "cgroup.procs").write_text("0")
        send(receiver.path, "READY=1\nFDSTORE=1\nFDNAME=a", [told_read])
        os.write(told_write, b"x")
        signal.pause()

    try:
        with cgroups.subtree() as subtree:
            leaf = Leaf(subtree, f"{subtree.path}/s")
            leaf.prepare({})
            with child_process(helper):
                wait_readable(receiver.fileno())
                read_until(told_read, lambda data: data)
                heard = Heard(loop, receiver, main)
                heard.unit.cgroup = leaf
                heard.take()
                assert heard.events == [machine.ready]
                assert [name for name, _fd in heard.unit.store.entries()] == ["a"]
                heard.unit.store.clear()
    finally:
        os.close(told_read)
        os.close(told_write)


def test_a_message_over_the_limit_is_told(loop: Loop, receiver: Receiver, main: int, lines: list[str]) -> None:
    send(receiver.path, "STATUS=" + "x" * MAX_DATAGRAM)
    heard = Heard(loop, receiver, main).take()
    assert not heard.unit.status_text
    assert lines == [
        f"s: 1 notification ignored, the last of pid {os.getpid()}: it is longer than {MAX_DATAGRAM} bytes"
    ]


def test_the_whole_path_of_the_socket_is_in_no_public_list(receiver: Receiver) -> None:
    assert receiver.path not in Path("/proc/net/unix").read_text(errors="replace")


def test_no_descriptor_is_left_of_a_sender(loop: Loop, receiver: Receiver, main: int) -> None:
    heard = Heard(loop, receiver, main)
    pipe = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    for words in ("READY=1", "x" * 2 * MAX_DATAGRAM):
        with child_process(lambda words=words: send(receiver.path, words, [*pipe])) as pid:  # type: ignore[misc]
            assert wait_exit(pid) == 0
        send(receiver.path, words, [*pipe])
        heard.take()
    assert len(os.listdir("/proc/self/fd")) == before
    for fd in pipe:
        os.close(fd)
