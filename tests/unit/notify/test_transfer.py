"""From a sender to the receiver, over real sockets."""

from __future__ import annotations

import os
import resource
import select
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.loop.loop import Loop
from supervisor.notify import untrusted
from supervisor.notify.receiver import MAX_AT_ONCE, MAX_DATAGRAM, Message, Notification, Receiver, Want
from supervisor.notify.service_side import Sender
from supervisor.notify.untrusted import MAX_DESCRIPTORS
from tests import fuse
from tests.unit.closing import bind_receiver
from tests.unit.process.forked import in_child, open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.varlink.lingering import LINGER, lingering, pass_on
from tests.unit.waiting import DEADLINE, child_process, run_until, wait_exit, wait_readable, wait_until

NOBODY = 65534


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = bind_receiver(tmp_path / "notify")
    yield receiver
    receiver.close()
    receiver._closer.file_systems.close()


@pytest.fixture
def sender(receiver: Receiver) -> Iterator[Sender]:
    sender = Sender(receiver.path)
    yield sender
    sender.close()


def take(receiver: Receiver, want: Want = Want.ALL, limit: int = MAX_AT_ONCE) -> list[Notification]:
    """The whole ones, whose descriptors the test closes; their senders are known by their pids."""
    found = []
    for notification in receiver.receive_nowait(limit, lambda _notification: want):
        notification.close_pidfd()
        if not notification.cut:
            found.append(notification._replace(pidfd=-1))
    return found


def test_a_message_comes_with_its_sender_s_credentials(receiver: Receiver, sender: Sender) -> None:
    assert sender.send_nowait("READY=1", "STATUS=up")
    (notification,) = take(receiver)
    assert notification._replace(sent=-1) == Notification(b"READY=1\nSTATUS=up", os.getpid(), os.getuid())
    assert notification.message == Message(ready=True, status="up")
    assert take(receiver) == []


def test_messages_come_in_their_order(receiver: Receiver, sender: Sender) -> None:
    assert all(sender.send_nowait(f"STATUS={number}") for number in range(10))
    assert [each.message.status for each in take(receiver)] == [str(number) for number in range(10)]


def test_another_process_is_named_by_its_pid(receiver: Receiver) -> None:
    def send() -> None:
        assert Sender(receiver.path).send_nowait("WATCHDOG=1")

    with child_process(send) as pid:
        assert wait_exit(pid) == 0
        (notification,) = take(receiver)
    assert (notification.pid, notification.message.watchdog) == (pid, True)


@needs_root
@pytest.mark.parametrize(("uid", "may"), [(0, True), (NOBODY, True), (NOBODY - 1, False)])
def test_the_service_s_user_and_root_may_send(tmp_path: Path, uid: int, may: bool) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            os.chmod(folder, 0o711)
    receiver = bind_receiver(tmp_path / "notify", NOBODY)

    def send() -> None:
        os.setresuid(uid, uid, uid)
        assert Sender(receiver.path).send_nowait("READY=1") is may

    try:
        with child_process(send) as pid:
            assert wait_exit(pid) == 0
            assert [(each.pid, each.uid) for each in take(receiver)] == ([(pid, uid)] if may else [])
    finally:
        receiver.close()


@pytest.mark.parametrize("count", [1, 2, MAX_DESCRIPTORS])
def test_descriptors_come_along(receiver: Receiver, sender: Sender, count: int) -> None:
    before = open_numbers()
    read_end, write_end = os.pipe()
    try:
        assert sender.send_nowait("FDSTORE=1", "FDNAME=pipe", fds=[write_end] * count)
        (notification,) = take(receiver)
        assert len(notification.fds) == count
        assert not any(os.get_inheritable(fd) for fd in notification.fds)
        for fd in notification.fds:
            os.write(fd, b".")
            os.close(fd)
        assert os.read(read_end, 4096) == b"." * count
    finally:
        os.close(read_end)
        os.close(write_end)
    assert open_numbers() == before


def test_more_descriptors_than_the_kernel_takes_are_not_sent(receiver: Receiver, sender: Sender) -> None:
    assert not sender.send_nowait("FDSTORE=1", fds=[0] * (MAX_DESCRIPTORS + 1))
    assert take(receiver) == []


def test_descriptors_that_nobody_wants_never_get_here(receiver: Receiver, sender: Sender) -> None:
    read_end, write_end = os.pipe()
    before = open_numbers()
    assert sender.send_nowait("BARRIER=1", fds=[write_end])
    os.close(write_end)
    (notification,) = take(receiver, Want.NOTHING)
    assert (notification.fds, notification.carries) == ((), True)
    assert open_numbers() == before - {write_end}
    wait_readable(read_end)
    assert os.read(read_end, 1) == b"", "whoever has sent it hears that it has been closed"
    os.close(read_end)


def test_who_has_no_room_for_descriptors_drops_them_and_leaks_none(receiver: Receiver, sender: Sender) -> None:
    """Some of them are none: the sender meant all."""

    def receive() -> tuple[list[tuple[int, ...]], bool]:
        event = os.eventfd(0, os.EFD_CLOEXEC)
        assert sender.send_nowait("FDSTORE=1", fds=[event] * 50)
        before = open_numbers()
        limit = [number for number in range(2000) if number not in before][10]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        return [notification.fds for notification in take(receiver)], open_numbers() == before

    assert in_child(receive) == ([], True)


def test_nothing_of_a_file_that_others_serve_is_received(receiver: Receiver, sender: Sender) -> None:
    """Not even this process's end could be waited for, and its children would close what it has."""
    if not fuse.is_possible():
        pytest.skip("needs FUSE")
    ours, theirs = socket.socketpair()

    def send() -> None:
        sender.send_nowait("FDSTORE=1", fds=[0, os.open(theirs.recv(1000), os.O_RDWR)])

    # the child ends when the server has gone
    with ours, theirs, child_process(send), fuse.unanswering(fuse.FLUSH) as path:
        before = open_numbers()
        ours.send(path.encode())
        wait_readable(receiver.fileno())
        (notification,) = take(receiver, Want.VETTED)
        assert (notification.fds, notification.carries) == ((), True)
        receiver._closer.file_systems.close()
        assert open_numbers() == before
        assert sender.send_nowait("READY=1")
        assert sender.send_nowait("FDSTORE=1", fds=[0])
        assert [each.message.ready for each in take(receiver)] == [True]
        assert receiver.is_blocked, "its sender waits in its own queue"
    assert receiver.wait(DEADLINE)
    assert len(take(receiver, Want.NOTHING)) == 1


def test_a_message_that_is_wanted_later_stays_in_its_place(receiver: Receiver, sender: Sender) -> None:
    assert sender.send_nowait("STATUS=1", fds=[0])
    assert sender.send_nowait("STATUS=2")
    assert take(receiver, Want.LATER) == []
    assert receiver.is_blocked
    assert not receiver.has_children
    first, second = take(receiver, Want.NOTHING)
    assert (first.message.status, second.message.status) == ("1", "2")


def test_a_message_whose_taker_runs_out_of_time_is_not_acted_upon_twice(
    receiver: Receiver, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again where it is still in the queue."""
    said: list[str] = []
    for number in range(100):
        assert sender.send_nowait(f"STATUS={number}", fds=[0])
        with monkeypatch.context() as patch:
            patch.setattr(untrusted, "PATIENCE_MS", 0)
            said += [each.message.status or "" for each in take(receiver, Want.NOTHING)]
        assert receiver.wait(DEADLINE)
        said += [each.message.status or "" for each in take(receiver, Want.NOTHING)]
        assert receiver.wait(DEADLINE)
    assert len(said) == len(set(said))


def test_files_of_our_own_disks_are_received(receiver: Receiver, sender: Sender, tmp_path: Path) -> None:
    with open("/etc/passwd") as file:
        assert sender.send_nowait("FDSTORE=1", fds=[file.fileno()])
        (notification,) = take(receiver, Want.VETTED)
        assert [os.path.sameopenfile(fd, file.fileno()) for fd in notification.fds] == [True]
        os.close(notification.fds[0])


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_what_closes_slowly_holds_up_its_sender_and_nobody_else(
    receiver: Receiver, sender: Sender, tmp_path: Path
) -> None:
    """The child that has taken it ends when all of it is closed."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        sender.send_nowait("STATUS=1", fds=[os.open(theirs.recv(1000), os.O_RDWR)])

    with ours, theirs, child_process(send), fuse.unanswering(fuse.FLUSH) as path:
        ours.send(path.encode())
        wait_readable(receiver.fileno())
        assert sender.send_nowait("STATUS=2", fds=[0])
        assert [each.message.status for each in take(receiver, Want.NOTHING)] == ["1"]
        assert receiver.is_blocked
        assert take(receiver, Want.NOTHING) == []
        other = bind_receiver(tmp_path / "other")
        another = Sender(other.path)
        assert another.send_nowait("STATUS=3", fds=[0])
        assert [each.message.status for each in take(other, Want.NOTHING)] == ["3"]
        assert other.wait(DEADLINE)
        another.close()
        other.close()
    assert receiver.wait(DEADLINE)
    assert [each.message.status for each in take(receiver, Want.NOTHING)] == ["2"]


def test_a_full_queue_is_no_reason_to_wait(receiver: Receiver, sender: Sender) -> None:
    sent = 0
    while sender.send_nowait(f"STATUS={sent}"):
        sent += 1
        assert sent < 100_000
    assert sent > 0
    assert [each.message.status for each in take(receiver)] == [str(number) for number in range(sent)]
    assert sender.send_nowait("STATUS=room again")


def test_nobody_there_is_no_error(tmp_path: Path) -> None:
    sender = Sender(str(tmp_path / "nobody"))
    assert not sender.send_nowait("READY=1")
    sender.close()
    assert not sender.send_nowait("READY=1")
    sender.close()


def test_a_receiver_that_came_later_or_came_again_is_found(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    sender = Sender(path)
    try:
        for number in range(3):
            receiver = bind_receiver(path)
            assert sender.send_nowait(f"STATUS={number}")
            assert [each.message.status for each in take(receiver)] == [str(number)]
            receiver.close()
            assert not sender.send_nowait("STATUS=nobody")
    finally:
        sender.close()


def test_what_a_killed_supervisor_left_is_bound_over(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")

    def bind() -> None:
        bind_receiver(path)

    with child_process(bind) as pid:
        assert wait_exit(pid) == 0
    assert stat.S_ISSOCK(os.stat(path).st_mode), "the test leaves no stale path"
    receiver = bind_receiver(path)
    sender = Sender(path)
    try:
        assert sender.send_nowait("READY=1")
        assert len(take(receiver)) == 1
    finally:
        sender.close()
        receiver.close()
    assert not os.path.exists(path)


def test_a_path_that_cannot_be_bound_leaks_nothing(tmp_path: Path) -> None:
    before = open_numbers()
    with pytest.raises(OSError, match="No such file"):
        bind_receiver(tmp_path / "missing" / "notify")
    with pytest.raises(OSError, match="too long"):
        bind_receiver(tmp_path / ("x" * 200))
    assert open_numbers() == before


def test_close_gives_back_socket_and_path(tmp_path: Path) -> None:
    before = open_numbers()
    receiver = bind_receiver(tmp_path / "notify")
    os.unlink(receiver.path)
    receiver.close()
    receiver = bind_receiver(tmp_path / "notify")
    receiver.close()
    assert list(tmp_path.iterdir()) == []
    assert open_numbers() == before


def test_what_nobody_has_read_is_not_waited_for_at_the_end(tmp_path: Path) -> None:
    """Its last close would be that of the socket, and that of what lingers waits."""
    receiver = bind_receiver(tmp_path / "notify")
    started = time.monotonic()
    with lingering() as passed, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(receiver.path)
        sender.send(b"")
        pass_on(sender, passed)
        receiver.close()
        assert time.monotonic() - started < LINGER / 2
        with pytest.raises(OSError, match="refused"):
            sender.send(b"x")


def test_an_abstract_address() -> None:
    """As systemd gives it to spawnd in a container."""
    name = f"spawnd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        sender = Sender(f"@{name}")
        try:
            assert sender.send_nowait("READY=1", "MAINPID=7")
        finally:
            sender.close()
        assert listener.recv(100) == b"READY=1\nMAINPID=7"


def test_the_environment_s_address_is_taken_out_of_it(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", receiver.path)
    sender = Sender.from_environment()
    assert "NOTIFY_SOCKET" not in os.environ
    assert sender.send_nowait("READY=1")
    assert len(take(receiver)) == 1
    sender.close()
    deaf = Sender.from_environment()
    assert not deaf.send_nowait("READY=1")


def test_a_message_longer_than_any_is_dropped_with_its_descriptors(receiver: Receiver, sender: Sender) -> None:
    before = open_numbers()
    assert sender.send_nowait("STATUS=" + "x" * (MAX_DATAGRAM - 7))
    assert sender.send_nowait("READY=1", "STATUS=" + "x" * MAX_DATAGRAM, fds=[0, 1])
    assert sender.send_nowait("STATUS=next")
    longest, following = take(receiver)
    assert len(longest.data) == MAX_DATAGRAM
    assert following.message.status == "next"
    wait_until(lambda: open_numbers() == before)  # those of a file are closed by a thread


def test_no_more_are_taken_at_once_than_wanted(receiver: Receiver, sender: Sender) -> None:
    for number in range(5):
        assert sender.send_nowait(f"STATUS={number}")
    assert [each.message.status for each in take(receiver, limit=3)] == ["0", "1", "2"]
    assert [each.message.status for each in take(receiver, limit=3)] == ["3", "4"]


def test_an_empty_message_ends_nothing(receiver: Receiver, sender: Sender) -> None:
    assert sender.send_nowait()
    assert sender.send_nowait("READY=1")
    assert [each.message.ready for each in take(receiver)] == [False, True]


def test_the_loop_hears_of_messages(loop: Loop, receiver: Receiver, sender: Sender) -> None:
    heard: list[Notification] = []
    loop.watch(receiver.fileno(), select.EPOLLIN, lambda _events: heard.extend(take(receiver)))
    assert sender.send_nowait("READY=1")
    run_until(loop, lambda: heard)
    loop.unwatch(receiver.fileno())


def test_one_that_never_stops_sending_keeps_nobody_waiting(receiver: Receiver) -> None:
    def flood() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(receiver.path)
            while True:
                with suppress(BlockingIOError):
                    sock.send(b"WATCHDOG=1")

    with child_process(flood), child_process(flood):
        for _ in range(20):
            wait_readable(receiver.fileno())
            assert 0 < len(take(receiver)) <= MAX_AT_ONCE
