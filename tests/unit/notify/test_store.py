"""The descriptor store."""

from __future__ import annotations

import os
import resource
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.linux.descriptors import Order, kcmp_files
from supervisor.loop.loop import Loop
from supervisor.notify import safe_close
from supervisor.notify import store as store_module
from supervisor.notify.safe_close import Closer
from supervisor.notify.store import NAMES_MAX, Store
from tests.unit.closing import PatientCloser, Reaper, Stopped
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import checked_loop, run_until, turn, wait_until

LIMIT = 100


@pytest.fixture
def store(loop: Loop) -> Iterator[Store]:
    """A store; whatever the test did with it, it leaves no descriptor open."""
    before = open_numbers()
    store = Store(loop, PatientCloser())
    yield store
    store.clear()
    assert len(store) == 0
    assert store.entries() == ()
    wait_until(lambda: open_numbers() == before)  # files are closed by a thread


def names(store: Store) -> list[str]:
    return [name for name, _ in store.entries()]


def memfd() -> int:
    return os.memfd_create("stored")


def test_what_is_stored_is_handed_out_in_its_order_and_stays_the_store_s(store: Store) -> None:
    fds = [memfd() for _ in range(3)]
    assert store.add("b", fds[:2], polled=True, limit=LIMIT) == 0
    assert store.add("a", fds[2:], polled=True, limit=LIMIT) == 0
    assert store.entries() == (("b", fds[0]), ("b", fds[1]), ("a", fds[2]))
    assert len(store) == 3


def test_the_same_open_file_is_kept_once(store: Store) -> None:
    fd = memfd()
    assert store.add("a", [fd, os.dup(fd)], polled=True, limit=LIMIT) == 0
    assert store.add("another name", [os.dup(fd)], polled=False, limit=LIMIT) == 0
    assert store.entries() == (("a", fd),)


def test_nothing_is_looked_at_where_there_is_no_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even whether it is there already."""
    fd = memfd()
    assert store.add("a", [fd], polled=True, limit=1) == 0
    looks: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "identity", looks.append)
        patch.setattr(store_module, "target", looks.append)
        assert store.add("a", [os.dup(fd)], polled=True, limit=1) == 1
    assert looks == []


def test_epolls_are_refused(store: Store) -> None:
    """Descriptors that others have put into an epoll may hold up a process that inspects it."""
    with select.epoll() as epoll:
        fds = [memfd(), os.dup(epoll.fileno()), memfd()]
        assert store.add("a", fds, polled=True, limit=LIMIT) == 1
        assert [fd for _, fd in store.entries()] == [fds[0], fds[2]]


def test_thousands_that_only_kcmp_tells_apart_are_not_compared_each_with_each(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[None] = []

    def compare(one: int, other: int) -> Order:
        compared.append(None)
        return kcmp_files(one, other)

    monkeypatch.setattr(store_module, "kcmp_files", compare)
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(open_numbers())
    number = min(4000, room // 3)
    fds = [os.eventfd(0) for _ in range(number)]
    again = [os.dup(fd) for fd in fds]
    assert store.add("a", fds, polled=False, limit=number) == 0
    assert store.add("a", again, polled=False, limit=number + 1) == 0
    assert len(store) == number
    store.clear()
    assert len(compared) <= 3 * number * number.bit_length()  # twice added, once cleared


def test_one_file_opened_twice_is_two(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    store.add("a", [os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)], polled=True, limit=LIMIT)
    assert names(store) == ["a", "a"]


def test_both_ends_of_a_pipe_are_two(store: Store) -> None:
    store.add("pipe", os.pipe(), polled=True, limit=LIMIT)
    assert names(store) == ["pipe", "pipe"]


def test_what_has_no_inode_of_its_own_is_told_apart(store: Store) -> None:
    """All event descriptors of the system share one inode."""
    store.add("events", [os.eventfd(0), os.eventfd(0)], polled=True, limit=LIMIT)
    assert len(store) == 2


def test_beyond_the_limit_they_are_refused_and_closed(store: Store) -> None:
    fds = [memfd() for _ in range(5)]
    assert store.add("a", fds, polled=True, limit=3) == 2
    assert [fd for _, fd in store.entries()] == fds[:3]
    for fd in fds[3:]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_service_without_a_store_can_store_nothing(store: Store) -> None:
    assert store.add("a", [memfd()], polled=True, limit=0) == 1


def test_a_limit_that_has_become_smaller_closes_nothing(store: Store) -> None:
    store.add("a", [memfd(), memfd()], polled=True, limit=2)
    assert store.add("a", [memfd()], polled=True, limit=1) == 1
    assert len(store) == 2


def test_names_must_fit_into_one_environment_string(store: Store) -> None:
    name = "n" * 255
    fitting = NAMES_MAX // 256
    fds = [memfd() for _ in range(fitting + 1)]
    assert store.add(name, fds, polled=True, limit=10_000) == 1
    assert len(store) == fitting
    assert len(":".join(names(store))) < NAMES_MAX
    store.remove(name)
    assert store.add(name, [memfd()], polled=True, limit=10_000) == 0


def test_who_is_not_executed_has_room_for_more_names(store: Store) -> None:
    fds = [memfd() for _ in range(NAMES_MAX // 256 + 1)]
    assert store.add("n" * 255, fds, polled=True, limit=10_000, names_max=1 << 30) == 0


def test_removal_is_by_name_and_takes_all_of_it(store: Store) -> None:
    fds = [memfd() for _ in range(4)]
    store.add("a", fds[:2], polled=True, limit=LIMIT)
    store.add("b", fds[2:3], polled=True, limit=LIMIT)
    store.add("a", fds[3:], polled=True, limit=LIMIT)
    store.remove("no such name")
    store.remove("a")
    assert store.entries() == (("b", fds[2]),)
    for fd in (fds[0], fds[1], fds[3]):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert store.add("a", [memfd()], polled=True, limit=LIMIT) == 0


def test_a_removed_one_is_watched_no_more_though_somebody_has_it_still(loop: Loop, store: Store) -> None:
    """As the service has, which sent it."""
    read_end, write_end = os.pipe()
    store.add("a", [os.dup(read_end)], polled=True, limit=LIMIT)
    store.remove("a")
    os.close(write_end)
    assert loop._epoll.poll(0) == []
    os.close(read_end)


def test_a_removed_one_can_be_stored_again(store: Store) -> None:
    fd = memfd()
    again = os.dup(fd)
    store.add("a", [fd], polled=True, limit=LIMIT)
    store.remove("a")
    assert store.add("a", [again], polled=True, limit=LIMIT) == 0
    assert store.entries() == (("a", again),)


def test_whose_peer_hangs_up_is_dropped(loop: Loop, store: Store) -> None:
    ours, theirs = socket.socketpair()
    quiet, quiet_peer = socket.socketpair()
    with theirs, quiet_peer:
        store.add("gone", [ours.detach()], polled=True, limit=LIMIT)
        store.add("quiet", [quiet.detach()], polled=True, limit=LIMIT)
        turn(loop, 3)
        assert names(store) == ["gone", "quiet"]
        theirs.close()
        run_until(loop, lambda: len(store) == 1)
        assert names(store) == ["quiet"]


def test_data_is_no_hang_up(loop: Loop, store: Store) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        store.add("a", [ours.detach()], polled=True, limit=LIMIT)
        theirs.send(b"wait for me")
        turn(loop, 3)
        assert len(store) == 1


def test_without_polling_a_hang_up_is_nobody_s_business(loop: Loop, store: Store) -> None:
    ours, theirs = socket.socketpair()
    store.add("a", [ours.detach()], polled=False, limit=LIMIT)
    theirs.close()
    turn(loop, 3)
    assert len(store) == 1


def test_a_pipe_nobody_reads_is_dropped(loop: Loop, store: Store) -> None:
    read_end, write_end = os.pipe()
    store.add("a", [write_end], polled=True, limit=LIMIT)
    os.close(read_end)
    run_until(loop, lambda: len(store) == 0)


def test_all_that_hang_up_in_one_moment_are_dropped(loop: Loop, store: Store) -> None:
    pairs = [socket.socketpair() for _ in range(20)]
    for ours, _ in pairs:
        store.add("a", [ours.detach()], polled=True, limit=LIMIT)
    for _, theirs in pairs:
        theirs.close()
    run_until(loop, lambda: len(store) == 0)


def test_what_cannot_be_polled_is_kept(loop: Loop, store: Store, tmp_path: Path) -> None:
    """Plain files, folders, descriptors that are but a path."""
    fds = [
        os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR),
        os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY),
        os.open(tmp_path, os.O_PATH),
        os.open("/proc/self/ns/net", os.O_RDONLY),
    ]
    assert store.add("a", fds, polled=True, limit=LIMIT) == 0
    turn(loop, 2)
    assert [fd for _, fd in store.entries()] == fds
    store.remove("a")


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["memfd", "pipe", "again", "remove", "hang up"]), st.sampled_from(["a", "b"])),
        max_size=25,
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_against_a_list(steps: list[tuple[str, str]]) -> None:
    before = open_numbers()
    with checked_loop() as loop:
        store = Store(loop, PatientCloser())
        model: list[tuple[str, int]] = []
        peers: dict[int, int] = {}
        for what, name in steps:
            if what == "memfd":
                model.append((name, memfd()))
                store.add(name, [model[-1][1]], polled=True, limit=LIMIT)
            elif what == "pipe":
                read_end, write_end = os.pipe()
                peers[read_end] = write_end
                model.append((name, read_end))
                store.add(name, [read_end], polled=True, limit=LIMIT)
            elif what == "again" and model:
                store.add(name, [os.dup(model[0][1])], polled=True, limit=LIMIT)
            elif what == "remove":
                store.remove(name)
                for fd in [fd for each, fd in model if each == name]:
                    _close_peer(peers, fd)
                model = [entry for entry in model if entry[0] != name]
            elif what == "hang up" and peers:
                fd = min(peers)
                _close_peer(peers, fd)
                model = [entry for entry in model if entry[1] != fd]
                turn(loop)
            assert list(store.entries()) == model
        store.clear()
        for fd in list(peers):
            _close_peer(peers, fd)
    wait_until(lambda: open_numbers() == before)  # files are closed by a thread


def _close_peer(peers: dict[int, int], fd: int) -> None:
    if fd in peers:
        os.close(peers.pop(fd))


def test_changes_are_told_once(store: Store) -> None:
    one, other = memfd(), memfd()
    store.add("a", [one], polled=False, limit=LIMIT)
    store.add("b", [other], polled=False, limit=LIMIT)
    come, gone = store.take_changes()
    assert ([stored.name for stored in come], gone) == (["a", "b"], [])
    assert store.take_changes() == ([], [])
    store.remove("a")
    assert store.take_changes() == ([], [one])


def test_what_came_and_went_is_gone_and_a_number_that_is_used_again_is_the_latest(store: Store) -> None:
    fd = memfd()
    store.add("a", [fd], polled=False, limit=LIMIT)
    store.remove("a")
    again = os.dup2(memfd_elsewhere := memfd(), fd)
    if memfd_elsewhere != fd:
        os.close(memfd_elsewhere)
    store.add("b", [again], polled=False, limit=LIMIT)
    come, gone = store.take_changes()
    assert ([stored.name for stored in come], gone) == (["b"], [])
    store.remove("b")
    assert store.take_changes() == ([], [fd])


def test_a_file_without_a_name_is_stored_once_and_dropped(store: Store, deepen: Callable[[], int]) -> None:
    fd = deepen()
    assert store.add("a", [fd, os.dup(fd)], polled=True, limit=LIMIT) == 0
    assert store.entries() == (("a", fd),)
    assert store.add("a", [memfd()], polled=True, limit=LIMIT) == 0
    store.remove("a")
    assert len(store) == 0


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_what_cannot_be_looked_at_is_closed(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The others of its message are stored where that is no fault of ours."""
    fds = [memfd() for _ in range(3)]

    def fail(fd: int) -> str:
        if fd == fds[1]:
            raise error
        return f"file {fd}"

    monkeypatch.setattr(store_module, "identity", fail)
    if error is OSError:
        assert store.add("a", fds, polled=True, limit=LIMIT) == 1
        assert store.entries() == (("a", fds[0]), ("a", fds[2]))
    else:
        with pytest.raises(error):
            store.add("a", fds, polled=True, limit=LIMIT)
        assert store.entries() == (("a", fds[0]),)
    assert fds[1] not in open_numbers()


def test_one_that_somebody_has_closed_keeps_no_other_from_being_dropped(store: Store) -> None:
    fds = [os.eventfd(0) for _ in range(5)]
    assert store.add("a", fds, polled=True, limit=LIMIT) == 0
    os.close(fds[2])
    store.clear()
    assert not open_numbers() & set(fds)


def test_too_many_that_are_still_to_be_closed_are_counted_for_their_store(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service could fill the descriptors of this process otherwise, while a close hangs."""
    monkeypatch.setattr(safe_close, "MOST", 10)
    reaper, clock = Reaper(), Stopped()
    store, other = Store(loop, closer := Closer(clock, reaper)), Store(loop, closer)
    for _ in range(11):  # a child has the first at once; the others wait, as nobody reaps it
        assert not store.is_closing_too_many
        assert store.add("a", [os.eventfd(0)], polled=False, limit=LIMIT) == 0
        store.remove("a")
    assert store.is_closing_too_many
    assert not other.is_closing_too_many
    reaper.settle()
    assert not store.is_closing_too_many
