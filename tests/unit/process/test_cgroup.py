from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.process.cgroup import Leaf, Statistics, Subtree, folder_name, freeze_and_kill, read_populated
from tests.unit.process import cgroups
from tests.unit.process.cgroups import wait_until
from tests.unit.process.forked import open_numbers, step_error
from tests.unit.process.launched import PYTHON, service, start, view
from tests.unit.process.requirements import needs_root


@pytest.fixture
def subtree() -> Iterator[Subtree]:
    with cgroups.subtree() as made:
        yield made


@pytest.fixture
def leaf(subtree: Subtree) -> Leaf:
    leaf = subtree.leaf("test@1.x")
    leaf.prepare({})
    return leaf


def sleeper(folder: str) -> int:
    """The pid of a process that sits in the cgroup `folder`, and is in there already."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        Path(folder, "cgroup.procs").write_text("0")
        os.write(write_end, b"x")
        while True:
            signal.pause()
    os.close(write_end)
    assert os.read(read_end, 1) == b"x"
    os.close(read_end)
    return pid


def killed(pid: int) -> bool:
    status = os.waitpid(pid, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@needs_root
def test_a_service_starts_in_its_cgroup(leaf: Leaf) -> None:
    seen = view(service(), cgroup=leaf.path)
    assert f"0::{leaf.path.removeprefix(cgroups.mount_point())}" in seen["cgroup"].splitlines()
    usage = leaf.statistics().cpu_s
    assert usage is not None
    assert 0 < usage < 60
    assert not leaf.is_populated()


@needs_root
@pytest.mark.parametrize("kill", [Leaf.kill, lambda leaf: freeze_and_kill(leaf.path)])
def test_kill_reaches_everything_below(leaf: Leaf, kill: object) -> None:
    nested = f"{leaf.path}/a/b"
    os.makedirs(nested)
    pids = [sleeper(leaf.path), sleeper(f"{leaf.path}/a"), sleeper(nested)]
    assert leaf.is_populated()
    assert callable(kill)
    kill(leaf)
    assert [killed(pid) for pid in pids] == [True] * 3
    wait_until(lambda: not leaf.is_populated())
    leaf.remove()
    assert not os.path.exists(leaf.path)


FORK_FOR_EVER = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.closerange(1, 3)  # the test reads them to their end
while True:
    if os.fork() != 0:
        os._exit(0)  # the child goes on: its pid is never the same for long
"""


@needs_root
@pytest.mark.parametrize("kill", [Leaf.kill, lambda leaf: freeze_and_kill(leaf.path)])
def test_kill_is_faster_than_fork(leaf: Leaf, kill: object) -> None:
    outcome = start(service(), (PYTHON, "-ISc", FORK_FOR_EVER), cgroup=leaf.path)
    assert outcome.failure is None
    assert leaf.is_populated()
    assert callable(kill)
    kill(leaf)
    wait_until(lambda: not leaf.is_populated())


@needs_root
def test_what_is_gone_is_killed_and_removed(subtree: Subtree) -> None:
    leaf = subtree.leaf("gone")
    leaf.kill()
    freeze_and_kill(leaf.path)
    leaf.remove()
    assert not leaf.is_populated()
    assert leaf.statistics() == Statistics(None, None)
    assert leaf.oom_kills() is None
    path = f"{leaf.path}/cgroup.events"
    assert step_error(leaf.open_events) == ("open", path, errno.ENOENT)


@needs_root
def test_a_populated_one_is_not_removed(leaf: Leaf) -> None:
    nested = f"{leaf.path}/nested"
    os.mkdir(nested)
    pid = sleeper(nested)
    assert step_error(leaf.remove) == ("remove cgroup", nested, errno.EBUSY)
    leaf.kill()
    assert killed(pid)


@needs_root
def test_the_end_of_the_last_process_is_seen(leaf: Leaf) -> None:
    before = open_numbers()
    events = leaf.open_events()
    assert not os.get_inheritable(events)
    assert not read_populated(events)
    poll = select.epoll()
    poll.register(events, select.EPOLLPRI)
    assert poll.poll(0) == []
    pid = sleeper(leaf.path)
    assert poll.poll(10)[0][1] & select.EPOLLPRI
    assert read_populated(events)
    assert poll.poll(0) == []
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert poll.poll(10)
    assert not read_populated(events)
    leaf.remove()
    assert not read_populated(events)
    poll.close()
    os.close(events)
    assert open_numbers() == before


@needs_root
def test_prepare_again_changes_nothing(leaf: Leaf) -> None:
    inode = os.stat(leaf.path).st_ino
    assert leaf.prepare({}) == ()
    assert os.stat(leaf.path).st_ino == inode


@needs_root
def test_a_controller_that_is_not_there(subtree: Subtree) -> None:
    available = Path(subtree.path, "cgroup.controllers").read_text().split()
    if "memory" in available:
        pytest.skip("the memory controller is here")
    assert subtree.enable(["memory"]) == {"memory"}
    assert subtree.leaf("x").prepare({"memory_max": "1000000"}) == (
        "memory_max needs the memory controller, which this cgroup does not have",
    )


@needs_root
def test_a_controller_that_is_there(subtree: Subtree) -> None:
    path = Path(subtree.path)
    available = (path / "cgroup.controllers").read_text().split()
    if not available:
        pytest.skip("no controller is here")
    assert subtree.enable(available) == frozenset()
    assert sorted((path / "cgroup.subtree_control").read_text().split()) == sorted(available)


@needs_root
def test_no_processes_in_inner_cgroups(subtree: Subtree) -> None:
    available = Path(subtree.path, "cgroup.controllers").read_text().split()
    if not available:
        pytest.skip("no controller is here")
    pid = sleeper(subtree.path)
    path = f"{subtree.path}/cgroup.subtree_control"
    errors = {controller: step_error(partial(subtree.enable, [controller])) for controller in available}
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    # also those for single threads (cpu, pids), which the kernel would take: cgroups(7), "threaded" mode
    assert errors == {name: (f"enable the {name} controller", path, errno.EBUSY) for name in available}
    assert Path(subtree.path, "cgroup.subtree_control").read_text().strip() == ""


@needs_root
def test_a_subtree_that_may_be_gone(subtree: Subtree) -> None:
    subtree.check()
    subtree.lost = True
    assert step_error(subtree.check) == ("use cgroup", subtree.path, errno.ESTALE)


@needs_root
def test_a_subtree_that_is_gone() -> None:
    leaf = Subtree("/sys/fs/cgroup/spawnd-nowhere").leaf("x")
    assert step_error(lambda: leaf.prepare({})) == ("make cgroup", leaf.path, errno.ENOENT)


# A folder of ordinary files in place of controllers that not every machine has.


@pytest.fixture
def fake(tmp_path: Path) -> Leaf:
    files = {"cgroup.controllers": "cpu io memory pids\n", "cgroup.subtree_control": "cpu memory pids\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    leaf = Subtree(str(tmp_path)).leaf("x")
    os.mkdir(leaf.path)
    return leaf


def put(leaf: Leaf, **files: str) -> None:
    for name, text in files.items():
        Path(leaf.path, name.replace("__", ".")).write_text(text)


def test_resources_are_written_and_the_others_set_back(fake: Leaf) -> None:
    put(fake, memory__max="max\n", memory__high="4096\n", cpu__max="max 100000\n", cpu__weight="100\n", pids__max="7\n")
    assert fake.prepare({"memory_max": "1073741824", "cpu_max": "50000 100000"}) == ()
    contents = {path.name: path.read_text().split("\n")[0] for path in Path(fake.path).iterdir()}
    assert contents["memory.max"] == "1073741824"
    assert contents["memory.high"].startswith("max")
    assert contents["cpu.max"] == "50000 100000"
    assert contents["cpu.weight"] == "100"
    assert contents["pids.max"].startswith("max")


def test_a_file_that_this_kernel_lacks(fake: Leaf) -> None:
    assert fake.prepare({"memory_swap_max": "0", "io_weight": "50"}) == (
        "memory_swap_max needs memory.swap.max, which this kernel does not have",
        "io_weight needs io.weight, which this kernel does not have",
    )
    assert Path(os.path.dirname(fake.path), "cgroup.subtree_control").read_text().startswith("+io")


def test_statistics(fake: Leaf) -> None:
    put(fake, memory__current="4096\n", cpu__stat="usage_usec 2500000\nuser_usec 1\ncore_sched.force_idle_usec x\n")
    put(fake, memory__events="low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert fake.statistics() == (4096, 2.5)
    assert fake.oom_kills() == 2


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("tftp", "tftp"),
        ("netns@a.b", "netns@a.b"),
        ("memory", "memory"),
        ("spawnd", "_spawnd"),
        ("_x", "__x"),
        ("cgroup.procs", "_cgroup.procs"),
        ("memory.max", "_memory.max"),
        ("..", "_.."),
    ],
)
def test_folder_names(name: str, folder: str) -> None:
    assert folder_name(name) == folder


@settings(database=None)
@given(st.text("_.@a") | st.sampled_from(["spawnd", "_spawnd", "cpu.max"]), st.text("_.@a"))
def test_no_two_services_share_a_folder(one: str, other: str) -> None:
    assert (folder_name(one) == folder_name(other)) == (one == other)


@needs_root
def test_a_signal_goes_to_every_process_in_it_and_below(leaf: Leaf) -> None:
    below = f"{leaf.path}/below"
    os.mkdir(below)
    pids = [sleeper(leaf.path), sleeper(leaf.path), sleeper(below)]
    os.kill(pids[1], signal.SIGSTOP)
    leaf.signal(signal.SIGTERM)
    for pid in pids:
        status = os.waitpid(pid, 0)[1]
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGTERM


@needs_root
def test_a_signal_to_a_cgroup_that_is_gone_is_heard_by_nobody(subtree: Subtree) -> None:
    subtree.leaf("gone").signal(signal.SIGTERM)
