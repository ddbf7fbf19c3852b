"""The accessory under a real spawnd: what is left of it after a crash, a restart, a new spawnd, and a stop."""

from __future__ import annotations

import json
import operator
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import held_pipe
from tests.accessory import SHIPPED, AccessoryDaemon, accessory_daemon
from tests.accessory_load import Load
from tests.daemon import BIN, command_name, descendants, process_state, start_time, wait_until
from tests.unit.process.requirements import needs_root
from tests.unit.workers.accessory.inode import MAPS, ask, inodes
from workers.accessory.client import Namespaces, RequestError

pytestmark = needs_root
KILLS = 12
NAMES = 60


@pytest.fixture
def daemon(folder: Path) -> Iterator[AccessoryDaemon]:
    with accessory_daemon(folder) as daemon:
        yield daemon


def crash(daemon: AccessoryDaemon) -> None:
    worker = daemon.worker
    os.kill(worker, signal.SIGKILL)
    daemon.wait_running("accessory", other_than=worker)


def restart(daemon: AccessoryDaemon) -> None:
    assert daemon.ctl("restart", "accessory").returncode == 0


def restart_by_signal(daemon: AccessoryDaemon) -> None:
    worker = daemon.worker
    daemon.signal(signal.SIGRTMIN + 1)
    daemon.wait_running("accessory", other_than=worker)


def reexec(daemon: AccessoryDaemon) -> None:
    result = daemon.ctl("reexec")
    assert result.returncode == 0, result.stderr


def reexec_and_crash(daemon: AccessoryDaemon) -> None:
    reexec(daemon)
    crash(daemon)


def wait_stored(daemon: AccessoryDaemon) -> None:
    """Until then the worker alone has the messages that a lost spawnd had not read."""
    wait_until(lambda: counters(daemon)["stored"] is True, "all to be stored")


def lose_spawnd(daemon: AccessoryDaemon) -> None:
    daemon.lose()
    daemon.again()


def lose_spawnd_and_crash(daemon: AccessoryDaemon) -> None:
    lose_spawnd(daemon)
    wait_stored(daemon)
    crash(daemon)


@pytest.mark.parametrize(
    "event", [crash, restart, restart_by_signal, reexec, reexec_and_crash, lose_spawnd, lose_spawnd_and_crash]
)
def test_everything_outlives(daemon: AccessoryDaemon, event: Callable[[AccessoryDaemon], None]) -> None:
    with daemon.connect() as client:
        first = {name: ask(client, name) for name in ("a", "b", "/")}
        held = client.request("a", lease=True)
    inits = inits_of(daemon)
    assert len(inits) == 3
    event(daemon)
    with daemon.connect() as client:
        assert {name: ask(client, name) for name in first} == first
    assert {pid: start_time(pid) for pid in inits} == inits
    wait_stored(daemon)
    assert row(daemon, "a")["leases"] == 1
    held.close()
    wait_until(lambda: row(daemon, "a")["leases"] == 0, "the end of the lease")


@pytest.mark.skipif(not held_pipe.is_possible(), reason="needs root and userfaultfd")
def test_a_client_that_keeps_the_pipe_of_its_lease_stops_nobody(daemon: AccessoryDaemon) -> None:
    with daemon.connect() as client, client.request("a", lease=True) as got, held_pipe.held(got.lease):
        got.close()
        with client.request("b", lease=True):
            assert row(daemon, "b")["leases"] == 1
        wait_until(lambda: row(daemon, "b")["leases"] == 0, "the end of another lease")
        assert row(daemon, "a")["leases"] == 1
    wait_until(lambda: row(daemon, "a")["leases"] == 0, "the end of the lease")


def inits_of(daemon: AccessoryDaemon) -> dict[int, int | None]:
    return {pid: start_time(pid) for pid in descendants(daemon.pid) if command_name(pid).startswith("init-")}


def counters(daemon: AccessoryDaemon) -> dict[str, object]:
    result = daemon.ctl("call", "accessory", "Counters")
    assert result.returncode == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout)
    return found


def row(daemon: AccessoryDaemon, name: str) -> dict[str, object]:
    result = daemon.ctl("call", "accessory", "List", json.dumps({"prefix": name}))
    assert result.returncode == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout)["names"][0]
    return found


def test_a_stop_ends_everything(daemon: AccessoryDaemon) -> None:
    with daemon.connect() as client:
        held = client.request("a", ipc=True, pid=True, user=MAPS)  # else the kernel may use their numbers again
        first = ask(client, "a")
    inits = inits_of(daemon)
    crash(daemon)  # so that they are nobody's children by now
    assert daemon.ctl("stop", "accessory").returncode == 0
    wait_until(lambda: all(process_state(pid) in ("", "Z") for pid in inits), "the end of the inits")
    assert daemon.ctl("start", "accessory").returncode == 0
    with held, daemon.connect() as client:
        assert not set(ask(client, "a")) & set(first)
        assert row(daemon, "a")["leases"] == 0


def test_while_there_is_no_spawnd_it_goes_on(daemon: AccessoryDaemon) -> None:
    with daemon.connect() as client:
        before = ask(client, "before")
        daemon.lose()
        meanwhile = ask(client, "meanwhile")
        assert ask(client, "before") == before
        daemon.again()
        wait_until(lambda: counters(daemon)["stored"] is True, "all to be stored")
    crash(daemon)
    with daemon.connect() as client:
        assert (ask(client, "before"), ask(client, "meanwhile")) == (before, meanwhile)


def test_clients_queue_while_it_is_down(daemon: AccessoryDaemon) -> None:
    worker = daemon.worker
    os.kill(worker, signal.SIGKILL)
    with daemon.connect() as client:
        assert ask(client, "a")


def test_what_it_says_of_itself(daemon: AccessoryDaemon) -> None:
    with daemon.connect() as client, client.request("a", ipc=True, pid=True, lease=True) as got:
        found = row(daemon, "a")
        assert (found["ipc"], found["pid"]) == (os.fstat(got.ipc).st_ino, os.fstat(got.pid).st_ino)
        assert (found["owner"], found["shared"], found["leases"], found["expires_s"]) == (0, True, 1, None)
        assert command_name(int(str(found["init"]))) == "init-a"
        text = "1 name, 1 lease, 1 client"
        wait_until(lambda: text in daemon.ctl("status", "accessory").stdout, "the status text")
        assert counters(daemon)["requests"] == 1
    wait_until(lambda: row(daemon, "a")["expires_s"] is not None, "the clock of a name that is not leased")


def test_a_long_list_comes_in_pages(daemon: AccessoryDaemon) -> None:
    with daemon.connect() as client:
        for number in range(30):
            client.request(f"{number:02}" + "x" * 40_000, ipc=True).close()
    names: list[str] = []
    offset: int | None = 0
    while offset is not None:
        result = daemon.ctl("call", "accessory", "List", json.dumps({"offset": offset}))
        reply = json.loads(result.stdout)
        names += [found["name"][:2] for found in reply["names"]]
        offset = reply["next"]
    assert names == [f"{number:02}" for number in range(30)]


def test_what_is_wrong_in_the_options_is_in_the_log(folder: Path) -> None:
    with AccessoryDaemon(folder, more='\naccessory.options.allow.root = "everything"\n') as daemon:
        daemon.wait_log("accessory: options.allow: 'root' has neither 'any' nor 'own'")


def test_killed_again_and_again_under_load(daemon: AccessoryDaemon) -> None:
    load = Load(daemon.address, NAMES, clients=4)
    load.lease_all()
    inits = inits_of(daemon)
    load.start()
    dice = random.Random(1)
    try:
        for _ in range(KILLS):
            time.sleep(dice.uniform(0, 0.2))
            worker = daemon.wait_pid("accessory")
            os.kill(worker, signal.SIGKILL)
            daemon.wait_pid("accessory", other_than=worker)
        load.check_all()
    finally:
        load.stop()
    assert (load.changed, load.failed, load.refused) == ([], [], 0)
    assert load.requests > KILLS
    assert {pid: start_time(pid) for pid in inits} == inits


def test_what_fills_the_limit_of_descriptors_outlives_a_kill(folder: Path) -> None:
    daemon = AccessoryDaemon(folder)
    daemon.prefix = ["prlimit", "--nofile=2048:2048"]
    with daemon:
        wait_until(lambda: daemon.pid_of("accessory") is not None, "the accessory")
        daemon.wait_state("accessory", "running")
        held: list[Namespaces] = []
        with daemon.connect() as client:
            error = None
            while error is None:
                try:
                    held.append(client.request(f"n-{len(held)}", ipc=True, lease=True))
                except RequestError as refusal:
                    error = refusal
            assert "too many open files" in str(error)
        assert len(held) > 600
        known = [os.fstat(namespaces.ipc).st_ino for namespaces in held]
        for _ in range(3):
            crash(daemon)
            with daemon.connect() as client:
                found = [inodes(client.request(f"n-{number}", ipc=True))[0] for number in range(len(held))]
            assert found == known
        for namespaces in held:
            namespaces.close()


def test_nothing_is_left_after_many_names(folder: Path) -> None:
    with accessory_daemon(folder, expiry="200ms") as daemon, daemon.connect() as client:
        inodes(client.request("first", ipc=True))  # the connection is one that the worker has taken
        wait_until(lambda: counters(daemon)["names"] == 0, "the end of the name")
        before = counts(daemon)
        for number in range(300):
            inodes(client.request(f"n{number}", ipc=True, pid=number % 10 == 0, lease=number % 2 == 0))
        wait_until(lambda: counters(daemon)["names"] == 0, "the end of all names")
        wait_until(lambda: all(map(operator.le, counts(daemon), before)), "nothing more than before")


def test_it_sleeps_once_it_has_no_name(folder: Path) -> None:
    """The connection has gone before; only the lease, and then the time of the name, keep it awake."""
    more = 'accessory.status, accessory.idle_stop = "demand", "200ms"'
    daemon = AccessoryDaemon(folder, "1s", more)
    with daemon:
        daemon.wait_state("accessory", "asleep")
        with daemon.connect() as client:
            lease = client.request("a", ipc=True, lease=True)
        worker = daemon.wait_running("accessory")
        with lease:
            wait_until(lambda: daemon.services()["accessory"]["busy"] == "it says so", "its veto")
            until = time.monotonic() + 2
            wait_until(lambda: time.monotonic() > until or daemon.state("accessory") != "running", "some time")
            assert daemon.worker == worker
            assert counters(daemon)["leases"] == 1
        daemon.wait_state("accessory", "asleep")
        assert "a" not in {row["name"] for row in json.loads(daemon.ctl("fds", "--json", "accessory").stdout)}
        assert counters(daemon)["names"] == 0  # the call has woken it


def counts(daemon: AccessoryDaemon) -> tuple[int, int, int]:
    """Descriptors of spawnd and of the worker, and processes."""
    spawnd, worker = (len(os.listdir(f"/proc/{pid}/fd")) for pid in (daemon.pid, daemon.worker))
    return spawnd, worker, len(descendants(daemon.pid))


def test_the_definition_that_ships_is_right() -> None:
    command = [str(BIN / "spawnd"), "--check", "--config", str(SHIPPED)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (0, "OK: 1 service\n")
