"""What outlives the worker: killed, handed over, without a spawnd."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.unit.process.requirements import needs_root
from tests.unit.waiting import wait_until
from tests.unit.workers.accessory.inode import ask, inodes
from tests.unit.workers.accessory.worker import Worker

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
    assert "of no use" in running.said()
    with running.connect() as client:
        first = ask(client, "a")
        running.take()
    restart_killed(running)
    with running.connect() as client:
        assert ask(client, "a") == first
    assert running.said().count("of no use") == 1


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
