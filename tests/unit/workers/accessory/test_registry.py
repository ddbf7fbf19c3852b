"""Replies to clients: the worker as a process, with real clients."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import TypeVar

import pytest

from supervisor.linux.namespaces import CLONE_NEWPID, CLONE_NEWUSER, setns
from tests.daemon import children, process_state
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import wait_until
from tests.unit.workers.accessory.inode import MAPS, ask, inodes
from tests.unit.workers.accessory.worker import Worker
from workers.accessory.client import RequestError
from workers.accessory.entry import NAME_UNIT

pytestmark = needs_root
T = TypeVar("T")
StartWorker = Callable[..., Worker]
OWN = {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in ("ipc", "pid", "user")}


def test_every_combination(worker: StartWorker) -> None:
    with worker().connect() as client:
        for number, (ipc, pid, has_user, lease) in enumerate(product([False, True], repeat=4)):
            user = MAPS if has_user else None
            with client.request(f"n{number}", ipc=ipc, pid=pid, user=user, lease=lease) as got:
                assert (got.ipc >= 0, got.pid >= 0, got.user >= 0, got.lease >= 0) == (ipc, pid, has_user, lease)
                if ipc:
                    assert os.readlink(f"/proc/self/fd/{got.ipc}").startswith("ipc:")
                if pid:
                    assert os.readlink(f"/proc/self/fd/{got.pid}").startswith("pid:")
                if lease:
                    assert os.write(got.lease, b"x") == 1


def test_the_same_name_gets_the_same_and_another_others(worker: StartWorker) -> None:
    running = worker()
    with running.connect() as one, running.connect() as other:
        first = ask(one, "a")
        assert first == ask(other, "a") == ask(one, "a")
        assert not set(first) & set(ask(other, "b"))
        assert not set(first) & set(OWN.values())
        assert inodes(one.request("a", ipc=True)) == (first[0], 0, 0)


def test_the_worker_stays_where_it_was(worker: StartWorker) -> None:
    running = worker()
    with running.connect() as client:
        ask(client, "a")
    for name, inode in OWN.items():
        assert os.stat(f"/proc/{running.pid}/ns/{name}").st_ino == inode
    assert os.stat(f"/proc/{running.pid}/ns/pid_for_children").st_ino == OWN["pid"]
    (init,) = running.inits()
    assert os.stat(f"/proc/{init}/ns/ipc").st_ino == OWN["ipc"]


def test_each_payload_has_a_user_namespace_of_its_own(worker: StartWorker) -> None:
    with worker().connect() as client:
        payloads = [b"", MAPS, b"0 0 1", b"0 0 2\x000 0 1"]
        found = [inodes(client.request("a", user=payload))[2] for payload in payloads]
        assert len(set(found)) == len(payloads)
        assert found == [inodes(client.request("a", user=payload))[2] for payload in payloads]


def test_blanks_in_a_payload_make_no_namespace(worker: StartWorker) -> None:
    running = worker(quota={"namespaces": 1})
    with running.connect() as client:
        found = {inodes(client.request("a", user=b" " * blanks + MAPS))[2] for blanks in range(0, 4000, 500)}
        assert len(found) == 1
        with pytest.raises(RequestError, match="uid_map is too long"):
            client.request("a", user=b" " * 5000 + MAPS)
        with pytest.raises(RequestError, match="malformed uid_map"):
            client.request("b", user=b"4294967296 0 1")
        assert inodes(client.request("a", user=MAPS))[2] in found


def test_maps_are_charged_by_their_length(worker: StartWorker) -> None:
    long = b"".join(b"%d %d 1\n" % (number, number) for number in range(100))
    weight = 1 + len(long) // NAME_UNIT
    running = worker(quota={"namespaces": 2 * weight - 1})
    with running.connect() as client:
        client.request("a", user=long).close()
        with pytest.raises(RequestError, match="too many namespaces"):
            client.request("b", user=long)
        for number in range(weight - 1):
            client.request("c", user=b"%d 0 1" % number).close()
        with pytest.raises(RequestError, match="too many namespaces"):
            client.request("c", user=b"")
    running.kill()
    running.start()
    with running.connect() as client, pytest.raises(RequestError, match="too many namespaces"):
        client.request("c", user=b"")


def test_maps_are_as_they_were_asked_for(worker: StartWorker) -> None:
    running = worker()
    maps = b"0 100000 10\n10 5 1\x000 7 3"
    with running.connect() as client, client.request("a", user=maps) as got:
        script = "cat /proc/self/uid_map; cat /proc/self/gid_map"
        command = ["nsenter", f"--user=/proc/self/fd/{got.user}", "--preserve-credentials", "sh", "-c", script]
        out = subprocess.run(command, pass_fds=[got.user], capture_output=True, text=True, check=True).stdout
    assert [line.split() for line in out.splitlines()] == [["0", "100000", "10"], ["10", "5", "1"], ["0", "7", "3"]]


def test_an_init_that_died_is_replaced_at_the_next_request(worker: StartWorker) -> None:
    running = worker()
    with running.connect() as client:
        first = ask(client, "a")
        (init,) = running.inits()
        os.kill(init, signal.SIGKILL)
        wait_until(lambda: not running.inits())
        second = ask(client, "a")
        assert first[0] == second[0]
        assert first[2] == second[2]
        assert len(running.inits()) == 1


@pytest.mark.parametrize("payload", [b"junk", b"0 0 1\n0 1 1"], ids=["malformed", "refused by the kernel"])
def test_what_is_refused_leaves_nothing_and_harms_nobody(worker: StartWorker, payload: bytes) -> None:
    running = worker()
    with running.connect() as client:
        kept = inodes(client.request("old", ipc=True))
        running.take()
        before = running.descriptors()
        for name in ("old", "new"):
            for _ in range(3):
                with pytest.raises(RequestError, match=r"cannot make user namespace \(uid_map\)"):
                    client.request(name, ipc=True, pid=True, user=payload, lease=True)
        wait_until(lambda: not children(running.pid))
        assert running.descriptors() == before
        running.take()
        assert running.spawnd.names() == ["journal", "n1"]
        assert inodes(client.request("old", ipc=True)) == kept


# what ends


@pytest.mark.parametrize("known", [False, True], ids=["", "after a crash"])
def test_a_namespace_that_is_ending_is_handed_out_to_nobody(worker: StartWorker, known: bool) -> None:
    """Its init ends only when its processes are reaped, and their parent may take its time."""
    running = worker()
    with running.connect() as client, client.request("a", pid=True) as first, process_inside(first.pid) as inside:
        before = client.request("a", pid=True)  # so that the answer is remembered
        assert os.path.sameopenfile(before.pid, first.pid)
        before.close()
        (init,) = running.inits()
        if known:
            running.kill()
            running.start()
        os.kill(init, signal.SIGKILL)
        wait_until(lambda: process_state(inside) == "Z")
        assert process_state(init) not in ("Z", "")  # it waits for that one
        with running.connect() as other, other.request("a", pid=True) as second:
            assert os.fstat(second.pid).st_ino != os.fstat(first.pid).st_ino
            with process_inside(second.pid):
                pass
            again = inodes(other.request("a", pid=True))[1]
            assert again == os.fstat(second.pid).st_ino
        os.waitpid(inside, 0)
        wait_until(lambda: process_state(init) in ("Z", ""))
    if not known:
        wait_until(lambda: not Path(f"/proc/{init}").exists())
    assert "Traceback" not in running.said()


@contextmanager
def process_inside(namespace: int) -> Iterator[int]:
    """A process in a PID namespace whose parent, this one, is outside; it is reaped in the end."""
    ours = os.open("/proc/self/ns/pid", os.O_RDONLY)
    setns(namespace, CLONE_NEWPID)
    try:
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
    finally:
        setns(ours, CLONE_NEWPID)
        os.close(ours)
    try:
        yield pid
    finally:
        with suppress(ChildProcessError, ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_nothing_is_left_of_a_name_that_has_expired(worker: StartWorker) -> None:
    running = worker(expiry="2s")
    before = running.descriptors()
    with running.connect() as client:
        for name in "abc":
            ask(client, name)
        assert len(running.stored()) == 7
    wait_until(lambda: running.stored() == ["journal"])
    wait_until(lambda: not children(running.pid) and running.descriptors() == before)


def test_a_lease_holds_all_that_is_under_its_name(worker: StartWorker) -> None:
    running = worker(expiry="100ms")
    with running.connect() as client:
        first = ask(client, "held")
        lease = client.request("held", lease=True)
        ask(client, "other")
        wait_until(lambda: "n2" not in running.stored())
        with client.request("held", lease=True):
            lease.close()
            assert ask(client, "held") == first
            wait_until(lambda: len(running.stored()) == 4)  # spawnd hears of its end, too
    wait_until(lambda: running.stored() == ["journal"])


def test_requests_put_off_the_end(worker: StartWorker) -> None:
    running = worker(expiry="1s")
    with running.connect() as client:
        first = inodes(client.request("a", ipc=True))
        client.request("b", ipc=True).close()


        def other_has_gone() -> bool:
            running.take()
            assert inodes(client.request("a", ipc=True)) == first
            return "n2" not in running.spawnd.names()

        wait_until(other_has_gone)


def test_term_ends_all_inits(worker: StartWorker) -> None:
    running = worker()
    with running.connect() as client:
        client.request("a", pid=True).close()
        client.request("b", pid=True).close()
        inits = running.inits()
        assert running.end() == 0
    for init in inits:
        os.waitpid(init, 0)  # it is ours now: the worker has gone without waiting for it


# limits


def test_without_descriptors_it_says_so_and_goes_on(worker: StartWorker) -> None:
    running = worker()
    with running.connect() as client:
        kept = inodes(client.request("old", ipc=True))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limit = running.descriptors() + 1
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (limit, hard))
        for kinds in ({"ipc": True, "lease": True}, {"pid": True}, {"ipc": True, "user": b""}):
            with pytest.raises(RequestError, match="Too many open files"):
                client.request("new", **kinds)
        assert inodes(client.request("old", ipc=True)) == kept
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert all(ask(client, "new"))


def test_a_full_process_table_is_answered(worker: StartWorker) -> None:
    running = worker()
    with running.connect() as client, process_limit(running.pid, 1):
        with pytest.raises(RequestError, match="cannot make PID namespace: Resource temporarily unavailable"):
            client.request("a", ipc=True, pid=True)
        with pytest.raises(RequestError, match="cannot make user namespace: Resource temporarily unavailable"):
            client.request("a", user=MAPS)
        assert inodes(client.request("b", ipc=True))[0]
        assert os.stat(f"/proc/{running.pid}/ns/pid_for_children").st_ino == OWN["pid"]
    with running.connect() as client:
        assert all(ask(client, "a"))


@contextmanager
def process_limit(pid: int, most: int) -> Iterator[None]:
    """Have a process and its children in a cgroup with so many of them at most."""
    parents = [path for path in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup") if os.path.exists(f"{path}/cgroup.procs")]
    if not parents:
        pytest.skip("needs a cgroup with a limit of processes")
    group = Path(parents[0], f"accessory-test-{os.getpid()}-{pid}")
    group.mkdir()
    try:
        if not (group / "pids.max").exists():
            pytest.skip("needs the controller pids")
        (group / "pids.max").write_text(str(most))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        Path(parents[0], "cgroup.procs").write_text(str(pid))
        group.rmdir()


def test_quotas_are_answered(worker: StartWorker) -> None:
    running = worker(quota={"names": 2, "namespaces": 3, "leases": 1, "connections": 2})
    with running.connect() as client, running.connect() as other:
        client.request("a", ipc=True, lease=True).close()
        client.request("b", ipc=True).close()
        with pytest.raises(RequestError, match="user 0 has too many names: the quota is 2"):
            client.request("c", ipc=True)
        with pytest.raises(RequestError, match="too many namespaces"):
            client.request("b", pid=True, user=b"")
        other.request("a", pid=True).close()
        with pytest.raises(RequestError, match="too many namespaces"):
            other.request("a", user=b"")
        with running.connect() as third, pytest.raises(RequestError, match="too many connections"):
            third.request("a", ipc=True)
    wait_until(lambda: connects(running))


def connects(running: Worker) -> bool:
    """Whether there is room for a connection again."""
    try:
        with running.connect() as client:
            return inodes(client.request("a", ipc=True))[0] > 0
    except RequestError:
        return False


# who may


def as_user(uid: int, act: Callable[[], T], groups: tuple[int, ...] = ()) -> T:
    def run() -> T:
        os.setgroups(groups)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        return act()

    return in_child(run)


def test_who_is_not_listed_is_told_so_at_its_first_request(worker: StartWorker) -> None:
    running = worker()

    def act() -> str:
        with running.connect() as client:
            try:
                client.request("a", ipc=True)
            except RequestError as error:
                try:
                    client.request("a", ipc=True)
                except (ConnectionResetError, BrokenPipeError):
                    return str(error)
        return "it was served twice"

    assert as_user(4711, act) == "user 4711 may not use this service"


def test_names_of_others_are_their_own_and_so_is_what_they_map(worker: StartWorker) -> None:
    running = worker(allow={"root": "any", "nobody": "own"})
    nobody = 65534

    def act() -> tuple[int, int, str]:
        refused = ""
        with running.connect() as client:
            ipc = inodes(client.request("a", ipc=True))[0]
            user = inodes(client.request("a", user=b"0 65534 1\x000 65534 1"))[2]
            try:
                client.request("a", user=b"0 0 1").close()
            except RequestError as error:
                refused = str(error)
        return ipc, user, refused

    with running.connect() as client:
        root = inodes(client.request("a", ipc=True))[0]
    ipc, user, refused = as_user(nobody, act)
    assert ipc not in (root, 0)
    assert user > 0
    assert refused == "uid_map: you may not map the ids 0 to 0"


def test_a_user_namespace_is_its_clients(worker: StartWorker) -> None:
    running = worker(allow={"root": "any", "nobody": "any"})

    def act() -> int:
        with running.connect() as client, client.request("a", user=b"0 65534 1\x000 65534 1") as got:
            inode = os.fstat(got.user).st_ino
            setns(got.user, CLONE_NEWUSER)
            return inode

    with running.connect() as client:
        mine = inodes(client.request("a", user=b"0 65534 1\x000 65534 1"))[2]
    assert as_user(65534, act) not in (mine, 0)
