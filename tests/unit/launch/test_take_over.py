"""Sessions outlive their acceptor; the next one counts them by the table, whatever the last one has left there."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread

import pytest

from supervisor.launch import session_table
from supervisor.launch.session_table import end_generation, make_table
from supervisor.process.pids import start_time
from tests.unit.launch.accepting import Acceptor, is_answered, wait_until

SLOTS = session_table._SLOTS
SLOT = session_table._SESSION
PEER = session_table._PEER
USED = 12  # the place of that number in the header


@pytest.fixture
def acceptor() -> Iterator[Acceptor]:
    with Acceptor(("/bin/cat",), max=3) as acceptor:
        yield acceptor


def connect(acceptor: Acceptor, stack: ExitStack, count: int, source: str = "127.0.0.1") -> list[socket.socket]:
    clients = [stack.enter_context(acceptor.connect(source)) for _ in range(count)]
    assert all(map(is_answered, clients))
    return clients


def test_the_next_acceptor_counts_on(acceptor: Acceptor) -> None:
    with ExitStack() as stack:
        clients = connect(acceptor, stack, 3)
        wait_until(lambda: acceptor.counters().started == 3)
        before = acceptor.sessions()
        acceptor.stop(signal.SIGKILL)
        acceptor.start()
        waiting = stack.enter_context(acceptor.connect())
        waiting.send(b"x")
        wait_until(lambda: acceptor.counters().sessions == 3)
        assert acceptor.sessions() == before
        assert all(map(is_answered, clients))
        assert acceptor.counters().started == 3
        clients[0].close()
        assert waiting.recv(1) == b"x"


def test_sessions_that_were_found_again_are_counted_by_the_next_acceptor(acceptor: Acceptor) -> None:
    with ExitStack() as stack:
        clients = connect(acceptor, stack, 2)
        found = {session.pid: (start_time(session.pid), 0) for session in acceptor.sessions()}
        acceptor.stop(signal.SIGKILL)
        gone = {max(found) + 1: (1, 0)}  # a process that has ended
        table = make_table(found | gone)
        os.dup2(table, acceptor.table, inheritable=False)
        os.close(table)
        counters = acceptor.counters()
        assert (counters.accepted, counters.started, counters.sessions) == (3, 3, 3)
        acceptor.start(max=3)
        clients += connect(acceptor, stack, 1)
        wait_until(lambda: acceptor.counters().sessions == 3)
        waiting = stack.enter_context(acceptor.connect())
        waiting.send(b"x")
        clients[0].close()
        assert waiting.recv(1) == b"x"
        assert {session.pid for session in acceptor.sessions()} & found.keys()


def test_an_end_without_a_parent_has_no_status(acceptor: Acceptor) -> None:
    with ExitStack() as stack:
        connect(acceptor, stack, 1)
        acceptor.stop()
        acceptor.start(logged="all")
        wait_until(lambda: acceptor.counters().sessions == 1)
    wait_until(lambda: acceptor.counters().sessions == 0)
    assert acceptor.text().endswith(": status unknown\n")


def test_limits_of_sources_hold(acceptor: Acceptor) -> None:
    with ExitStack() as stack:
        connect(acceptor, stack, 2)
        acceptor.stop()
        acceptor.start(max=100, per_source=2)
        assert acceptor.ask() == b""
        connect(acceptor, stack, 2, "127.0.0.2")


def test_sessions_survive_many_acceptors() -> None:
    with Acceptor(("/bin/cat",), max=50, per_source=50) as acceptor, ExitStack() as stack:
        clients = connect(acceptor, stack, 50)
        for _ in range(20):
            acceptor.stop(signal.SIGKILL)
            acceptor.start()
            wait_until(lambda: acceptor.counters().sessions == 50)
            assert all(map(is_answered, clients))
            clients.pop(0).close()
            wait_until(lambda: acceptor.counters().sessions == 49)
            clients += connect(acceptor, stack, 1)


def test_a_lower_maximum_ends_nobody(acceptor: Acceptor) -> None:
    with ExitStack() as stack:
        clients = connect(acceptor, stack, 3)
        acceptor.stop()
        acceptor.start(max=1, refuses=True)
        assert acceptor.ask() == b""
        assert all(map(is_answered, clients))


def write_slot(acceptor: Acceptor, slot: int, changes: int, pid: int, begin: int, end: int) -> None:
    peer = PEER.pack(4, 1, 0, 0, 0, bytes(10) + b"\xff\xff\x7f\0\0\1")
    os.pwrite(acceptor.table, SLOT.pack(changes, pid, 1, begin, end, 1, peer, 0, 0), SLOTS + slot * SLOT.size)
    os.pwrite(acceptor.table, struct.pack("=I", slot + 1), USED)


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.fixture
def other() -> Iterator[int]:
    """A process that is no session."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.fixture
def thread() -> Iterator[int]:
    """The number of a thread that is not the first one of its process."""
    over = Event()
    thread = Thread(target=over.wait)
    thread.start()
    yield int(thread.native_id or 0)
    over.set()
    thread.join()


@pytest.mark.parametrize("what", ["claimed", "being written", "ended", "another process", "a thread"])
def test_what_a_killed_acceptor_leaves_is_cleared(what: str, acceptor: Acceptor, other: int, thread: int) -> None:
    acceptor.stop(signal.SIGKILL)
    match what:
        case "claimed":
            write_slot(acceptor, 0, 2, 0, now(), now())
        case "being written":
            write_slot(acceptor, 0, 3, 0, now(), now())
        case "ended":
            pid = os.posix_spawn("/bin/true", ["true"], {})
            os.waitpid(pid, 0)
            write_slot(acceptor, 0, 2, pid, now(), now())
        case "a thread":  # that of another process has got the number
            write_slot(acceptor, 0, 2, thread, now() - 10**10, now())
        case _:
            write_slot(acceptor, 0, 2, other, now() + 10**9, now() + 2 * 10**9)
    acceptor.start()
    with ExitStack() as stack:
        connect(acceptor, stack, 3)
        wait_until(lambda: acceptor.counters().sessions == 3)
        assert len({session.pid for session in acceptor.sessions()} - {other}) == 3
    wait_until(lambda: acceptor.counters().sessions == 0)
    assert Path(f"/proc/{other}").exists()


def test_a_process_with_the_right_start_is_counted(acceptor: Acceptor, other: int) -> None:
    acceptor.stop()
    ticks = int(Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[19])
    write_slot(acceptor, 0, 3, other, ticks * 10**7, ticks * 10**7 + 1)
    acceptor.start()
    wait_until(lambda: acceptor.counters().sessions == 1)
    assert [session.pid for session in acceptor.sessions()] == [other]


def test_a_process_of_an_earlier_generation_is_no_session(acceptor: Acceptor) -> None:
    """It is one that had not yet written its pid when the next acceptor looked."""
    with ExitStack() as stack:
        connect(acceptor, stack, 1)
        end_generation(acceptor.table)
        assert acceptor.ask() == b""
    wait_until(lambda: acceptor.counters().ended == 2)
    assert "exit status 111" in acceptor.text()


def test_signals_reach_sessions_of_another_acceptor(acceptor: Acceptor) -> None:
    with ExitStack() as stack:
        (client,) = connect(acceptor, stack, 1)
        acceptor.stop()
        acceptor.start(session_timeout=0.1)
        assert client.recv(1) == b""


def test_counters_go_on(acceptor: Acceptor) -> None:
    acceptor.stop()
    acceptor.start(only_from=())
    assert [acceptor.ask() for _ in range(3)] == [b""] * 3
    acceptor.stop()
    acceptor.start(max=7)
    assert acceptor.ask() == b""
    assert (acceptor.counters().accepted, acceptor.counters().refused["only_from"]) == (4, 4)
