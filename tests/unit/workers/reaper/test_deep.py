"""Cgroups whose paths are longer than the kernel takes, and errors that come again and again."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.unit.process.forked import open_numbers
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import wait_exit
from tests.unit.workers.reaper.ground import Ground
from tests.unit.workers.reaper.scenario import Script, play, until
from workers.reaper import node, release, tree
from workers.reaper.node import WatchedCgroup
from workers.reaper.reaper import Reaper
from workers.reaper.schedule import COMPLAINTS_PAUSE, MOST_COMPLAINTS, Complaints
from workers.reaper.watches import Watches

NAME = "n" * 200


@contextmanager
def chain(folder: Path, depth: int, name: str = NAME) -> Iterator[int]:
    """A chain of cgroups, as a descriptor of the last one; what is left of it is removed in the end."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    try:
        yield fd
    finally:
        try:
            remove(fd, depth, name)
        finally:
            os.close(fd)


def remove(fd: int, depth: int, name: str) -> None:
    below = os.dup(fd)
    for _ in range(depth):
        try:
            above = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=below)
        finally:
            os.close(below)
        with suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=above)
        below = above
    os.close(below)


def pass_through(fd: int) -> None:
    """A process enters the cgroup and ends."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=fd)
            os.write(procs, b"0")
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    wait_exit(pid)


def is_gone(fd: int) -> bool:
    return os.fstat(fd).st_nlink == 0 or not _has_file(fd)


def _has_file(fd: int) -> bool:
    try:
        os.close(os.open("cgroup.events", os.O_RDONLY, dir_fd=fd))
    except OSError:
        return False
    return True


@needs_root
def test_a_chain_longer_than_a_path_is_deleted(caplog: pytest.LogCaptureFixture) -> None:
    depth = 60  # 12,000 bytes

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        with chain(own.make(), depth) as last:
            await until(lambda: len(reaper.tree.members()) == depth)
            pass_through(last)
            await until(lambda: len(script.told) == depth)
            assert is_gone(last)
            assert list(own.folder().glob("n*")) == []
            paths = script.paths()
            assert paths[-1] == f"{own.scope}/{NAME}", "deepest first"
            assert paths[0].endswith(f"{NAME}/…/{NAME}")
            assert all(len(path) < 4400 for path in paths)
            first = depth - paths[0].count(NAME)
            assert [released.left_out for released in script.told[:3]] == [first, first - 1, first - 2]

    before = open_numbers()
    play(scenario, Ground.make)
    assert open_numbers() == before
    assert "cannot" not in caplog.text


@needs_root
def test_a_chain_that_was_there_before(caplog: pytest.LogCaptureFixture) -> None:
    depth = 40

    def run(own: Ground) -> None:
        stack.append(chain(own.make(), depth))
        pass_through(stack[0].__enter__())

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        try:
            await until(lambda: len(script.told) == depth)
        finally:
            stack[0].__exit__(None, None, None)

    stack: list = []  # type: ignore[type-arg]
    play(scenario, run)
    assert "cannot" not in caplog.text


@needs_root
def test_many_chains_keep_few_folders_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "MOST_FOLDERS", 4)

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make()
        before = len(os.listdir("/proc/self/fd"))
        names = [f"{number}" for number in range(5)]
        with chain(own.make(names[0]), 50) as a, chain(own.make(names[1]), 50) as b, chain(own.make(names[2]), 50) as c:
            await until(lambda: len(reaper.tree.members()) == 153)
            assert len(os.listdir("/proc/self/fd")) <= before + 3 + 4
            for last in (a, b, c):
                pass_through(last)
            await until(lambda: len(script.told) == 153)

    play(scenario, Ground.make)


@needs_root
def test_what_cannot_be_watched_is_tried_again_and_told_of_with_escapes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tree, "FAILED_PAUSE", 0.2)
    add = Watches.add
    broken = True
    tried = 0

    def adding(self: Watches, node: WatchedCgroup) -> bool:
        nonlocal tried
        if broken and node.name.startswith("bad"):
            tried += 1
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), node.path)
        return add(self, node)

    monkeypatch.setattr(Watches, "add", adding)

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        nonlocal broken
        own.make("bad\rforged\x1b[2J")
        await until(lambda: tried >= 2)
        assert len(reaper.tree.members()) == 0
        assert tried < 30
        broken = False
        await until(lambda: reaper.tree.members())

    play(scenario, Ground.make)
    lines = [record.getMessage() for record in caplog.records]
    (line, *_) = [line for line in lines if "cannot watch cgroup" in line]
    assert line.endswith("bad\\rforged\\x1b[2J: Permission denied; trying again")


@needs_root
def test_a_cgroup_whose_child_nobody_can_watch_is_looked_at_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel calls it busy, and no event will ever come."""
    monkeypatch.setattr(release, "BUSY_PAUSE", 0.01)
    monkeypatch.setattr(release, "MOST_BUSY", 3)
    add = Watches.add
    refused: list[float] = []

    def adding(self: Watches, node: WatchedCgroup) -> bool:
        if node.name == "bad":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), node.path)
        return add(self, node)

    refuse = release.Releases._refused

    def refusing(self: release.Releases, node: WatchedCgroup, error: OSError) -> None:
        refused.append(asyncio.get_running_loop().time())
        refuse(self, node, error)

    monkeypatch.setattr(Watches, "add", adding)
    monkeypatch.setattr(release.Releases, "_refused", refusing)

    async def scenario(own: Ground, reaper: Reaper, script: Script) -> None:
        own.make("one")
        await until(lambda: reaper.tree.members())
        own.make("one/bad")
        own.pass_through("one")
        await until(lambda: len(refused) >= 6)
        assert refused[5] - refused[0] >= 0.01 * (1 + 2 + 4 + 8 + 8)
        assert own.folder("one").exists()

    play(scenario, Ground.make)


def test_the_same_error_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    complaints = Complaints(lambda: now)
    for number in range(MOST_COMPLAINTS + 5):
        complaints.tell("watch", f"/{number}", OSError(errno.EACCES, "Permission denied"))
    complaints.tell("watch", "/x", OSError(errno.ENOMEM, "Cannot allocate memory"))
    complaints.tell("read", "/x", OSError(errno.EACCES, "Permission denied"))
    assert len(caplog.records) == MOST_COMPLAINTS + 2
    now += COMPLAINTS_PAUSE
    complaints.tell("watch", "/y", OSError(errno.EACCES, "Permission denied"))
    assert caplog.records[-1].getMessage() == (
        "cannot watch cgroup /y: Permission denied; trying again (5 more such errors before)"
    )
