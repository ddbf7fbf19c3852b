from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.process.requirements import needs_root
from tests.unit.waiting import wait_until
from tests.unit.workers.accessory.inode import ask, inodes
from tests.unit.workers.accessory.worker import Worker
from workers.accessory.ledger import (
    JOURNAL,
    PIECE,
    ROOM,
    Journal,
    LoggedName,
    init_line,
    leased_line,
    read_lines,
    read_stored_name,
    stored_name,
    touched_line,
    user_line,
)
from workers.accessory.ledger import name_line as line_of


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal.create()
    yield journal
    journal.close()


def lines_of(journal: Journal) -> list[bytes]:
    again, lines = Journal.resume(os.dup(journal.fd))
    again.close()
    return list(lines)


def test_what_is_appended_comes_back(journal: Journal) -> None:
    assert lines_of(journal) == []
    journal.append(b"one\ntwo\n")
    journal.append(b"three\n")
    assert lines_of(journal) == [b"one", b"two", b"three"]


def test_a_line_that_was_cut_off_was_never_written(journal: Journal) -> None:
    journal.append(b"one\n")
    os.pwrite(journal.fd, b"tw", os.fstat(journal.fd).st_size)
    again, lines = Journal.resume(os.dup(journal.fd))
    assert list(lines) == [b"one"]
    again.append(b"three\n")
    again.close()
    assert lines_of(journal) == [b"one", b"three"]


def test_written_anew_it_takes_no_more_room(journal: Journal) -> None:
    journal.append(b"x" * 1_000_000 + b"\n")
    before = os.fstat(journal.fd).st_blocks
    journal.replace([b"short\n"])
    assert os.fstat(journal.fd).st_blocks < before / 20
    journal.append(b"more\n")
    assert lines_of(journal) == [b"short", b"more"]


def test_killed_while_it_is_written_anew_nothing_is_lost(journal: Journal) -> None:
    anew = [
        name_line(known(2)), user_line(2, 7, 1000, b"map"), init_line(2, 33, 44), leased_line(2), name_line(known(3))
    ]  # fmt: skip
    journal.append(name_line(known(1)) + b"".join(anew[:4]) + b"X 1\n" + anew[4])
    facts = read_lines(line[:-1] for line in anew)
    for line in anew:  # what `replace` does first
        journal.append(line)
        assert read_lines(lines_of(journal)) == facts
    journal.replace(anew)
    assert b"\n".join(lines_of(journal)) + b"\n" == b"".join(anew)


def test_written_anew_it_may_have_any_number_of_lines(journal: Journal) -> None:
    lines = [leased_line(number) for number in range(3 * PIECE + 1)]
    journal.replace(lines)
    assert lines_of(journal) == [line[:-1] for line in lines]


def test_it_is_long_when_it_has_grown(journal: Journal) -> None:
    journal.replace([])
    assert not journal.is_long
    journal.append(b"x" * ROOM + b"\n")
    assert journal.is_long
    journal.replace([b"x\n"])
    assert not journal.is_long


def test_what_cannot_be_written_is_not_there(journal: Journal) -> None:
    journal.append(b"one\n")
    broken = Journal(os.open(f"/proc/self/fd/{journal.fd}", os.O_RDONLY), 16, 20)
    with pytest.raises(OSError, match="Bad file descriptor"):
        broken.append(b"two\n")
    broken.close()
    assert lines_of(journal) == [b"one"]


@pytest.mark.parametrize("content", [b"", b"short", b"something else" * 10])
def test_what_is_no_log(content: bytes) -> None:
    fd = os.memfd_create("x")
    os.write(fd, content)
    with pytest.raises(ValueError, match="not a log of names"):
        Journal.resume(fd)
    os.close(fd)


# lines


def known(id: int, **fields: object) -> LoggedName:
    return LoggedName(**{"id": id, "realm": -1, "payer": 0, "until": 5, "name": "a b", **fields})  # type: ignore[arg-type]


def name_line(logged: LoggedName) -> bytes:
    return line_of(logged.id, logged.realm, logged.payer, logged.until, logged.name)


def read(*lines: bytes) -> dict[int, LoggedName]:
    found, damaged = read_lines(b"".join(lines).splitlines())
    assert damaged == 0
    return found


def test_a_name_with_all_that_belongs_to_it() -> None:
    entry = known(3)
    lines = [name_line(entry), user_line(3, 77, 1000, b"0 0 1\n\0\xff"), init_line(3, 42, 4242), leased_line(3)]
    users = {77: (1000, b"0 0 1\n\0\xff")}
    assert read(*lines) == {3: known(3, users=users, init=(42, 4242), leased=True)}
    assert read(*lines, b"E 3\n", touched_line(3, 99)) == {3: known(3, users=users, until=99)}
    assert read(*lines, b"X 3\n") == {}
    assert read(*lines, b"X 3\n", name_line(known(4))) == {4: known(4)}


def test_an_empty_payload_is_one() -> None:
    assert read(name_line(known(1)), user_line(1, 7, 0, b"")) == {1: known(1, users={7: (0, b"")})}


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7F), min_size=1))
def test_every_name_comes_back(name: str) -> None:
    assert read(name_line(known(1, name=name))) == {1: known(1, name=name)}


def test_what_cannot_be_read_is_counted_and_the_rest_read() -> None:
    lines = [b"", b"?", b"N", b"N 1", b"N x 1 1 1 a", b"U 9 1 1 00", b"P 1 x 1", b"Q 1 1", name_line(known(1)).rstrip()]
    assert read_lines([*lines, b"Q 1 1", b"P 1 7"]) == ({1: known(1)}, len(lines) + 1)


@given(st.integers(0, 2**60))
def test_names_in_the_store(id: int) -> None:
    name = stored_name(id)
    assert read_stored_name(name) == id
    assert id >= 36**4 or len(name) <= 5


@pytest.mark.parametrize("text", ["", "n", JOURNAL, "N1", "n-1", "n1 ", "control"])
def test_other_names_in_the_store(text: str) -> None:
    assert read_stored_name(text) is None


pytestmark = needs_root
StartWorker = Callable[..., Worker]


def restart_killed(running: Worker) -> None:
    running.kill()
    running.start()


def restart_handed_over(running: Worker) -> None:
    assert running.end(signal.SIGUSR1) == 0
    running.start()


@pytest.fixture(params=[restart_killed, restart_handed_over], ids=["killed", "handed over"])
def restart(request: pytest.FixtureRequest) -> Callable[[Worker], None]:
    chosen: Callable[[Worker], None] = request.param
    return chosen


def test_every_name_gives_the_same(worker: StartWorker, restart: Callable[[Worker], None]) -> None:
    running = worker()
    names = ["a", "b", "/", "x" * 5000]
    with running.connect() as client:
        first = [ask(client, name) for name in names]
        only_pid = inodes(client.request("only pid", pid=True))
        running.take()
    for _ in range(3):
        restart(running)
        with running.connect() as client:
            assert [ask(client, name) for name in names] == first
            assert inodes(client.request("only pid", pid=True)) == only_pid
            new = ask(client, f"new {running.pid}")
            assert not set(new) & set(sum(first, ()))
            running.take()


def test_inits_are_watched_on(worker: StartWorker, restart: Callable[[Worker], None]) -> None:
    running = worker()
    with running.connect() as client:
        held = client.request("a", pid=True)  # else the kernel may use its number again
        first = inodes(client.request("a", pid=True))
        (init,) = running.inits()
    restart(running)
    with held, running.connect() as client:
        assert inodes(client.request("a", pid=True)) == first
        os.kill(init, signal.SIGTERM)
        os.waitpid(init, 0)
        wait_until(lambda: inodes(client.request("a", pid=True)) != first)
        assert len(running.inits()) == 1


def test_an_init_that_died_meanwhile_is_replaced(worker: StartWorker) -> None:
    running = worker()
    with running.connect() as client:
        first = ask(client, "a")
        running.take()
        (init,) = running.inits()
    running.kill()
    os.kill(init, signal.SIGKILL)
    os.waitpid(init, 0)
    running.start()
    with running.connect() as client:
        second = ask(client, "a")
    assert (second[0], second[2]) == (first[0], first[2])
    assert len(running.inits()) == 1


def test_leases_hold_on_and_their_end_is_heard(worker: StartWorker, restart: Callable[[Worker], None]) -> None:
    running = worker(expiry="200ms")
    with running.connect() as client:
        held = client.request("held", ipc=True, lease=True)
        first = os.fstat(held.ipc).st_ino
        running.take()
        restart(running)
    with running.connect() as client:
        client.request("other", ipc=True).close()
        wait_until(lambda: "n2" not in running.stored())
        assert inodes(client.request("held", ipc=True))[0] == first
        held.close()
    wait_until(lambda: running.stored() == ["journal"])


def test_a_lease_that_ended_meanwhile(worker: StartWorker) -> None:
    running = worker(expiry="200ms")
    with running.connect() as client:
        held = client.request("held", ipc=True, pid=True, lease=True)
        running.take()
        (init,) = running.inits()
    running.kill()
    held.close()
    running.start()
    wait_until(lambda: running.stored() == ["journal"])
    assert os.waitpid(init, 0)[0] == init


def test_clocks_go_on(worker: StartWorker) -> None:
    running = worker(expiry="4s")
    with running.connect() as client:
        client.request("a", ipc=True, pid=True).close()
        asked = time.monotonic()
        running.take()
    wait_until(lambda: time.monotonic() > asked + 2)  # half of the time passes before the restart
    killed = time.monotonic()
    restart_killed(running)
    wait_until(lambda: running.stored() == ["journal"])
    ended = time.monotonic()
    assert ended > asked + 3.9
    assert ended < killed + 3.9


def test_what_the_log_does_not_know_is_dropped_from_the_store(worker: StartWorker) -> None:
    running = worker()
    running.kill()
    running.spawnd.store.add("n77", [os.open("/proc/self/ns/ipc", os.O_RDONLY)], polled=False, limit=99)
    running.start()
    wait_until(lambda: running.stored() == ["journal"])


def test_a_log_of_no_use_costs_the_names_and_nothing_else(worker: StartWorker) -> None:
    running = worker()
    with running.connect() as client:
        client.request("a", ipc=True).close()
        running.take()
    running.kill()
    (journal,) = (fd for name, fd in running.spawnd.store.entries() if name == "journal")
    os.pwrite(journal, b"nonsense", 0)
    running.start()
    assert "cannot use a log of names" in running.said()
    with running.connect() as client:
        first = ask(client, "a")
        running.take()
    restart_killed(running)
    with running.connect() as client:
        assert ask(client, "a") == first
    assert running.said().count("cannot use a log of names") == 1


def test_without_a_spawnd_it_goes_on_and_catches_up(worker: StartWorker) -> None:
    running = worker()
    with running.connect() as client:
        first = ask(client, "before")
        running.spawnd.lose()
        running.spawnd.store.clear()
        meanwhile = ask(client, "meanwhile")
        assert ask(client, "before") == first
        running.spawnd.listen()
        wait_until(lambda: len(running.stored()) == 5)
    restart_killed(running)
    with running.connect() as client:
        assert (ask(client, "before"), ask(client, "meanwhile")) == (first, meanwhile)


def test_a_spawnd_that_hangs_delays_one_request(worker: StartWorker) -> None:
    running = worker()
    with running.connect() as client, ExitStack() as stack:
        started = time.monotonic()
        for number in range(40):  # more than the queue holds
            stack.enter_context(client.request(f"n{number}", ipc=True, lease=True))
        assert time.monotonic() - started < 10
        wait_until(lambda: len(running.stored()) == 81)


def test_clients_wait_for_the_successor(worker: StartWorker) -> None:
    running = worker()
    running.kill()
    with running.connect() as client:
        running.start()
        assert ask(client, "a")
