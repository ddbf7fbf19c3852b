"""The state that a task leaves to later ones, also if it is cut off."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import SpawnError
from supervisor.linux.signal_mask import block_all
from tests.namespaces import count_links, names
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_ip, needs_root
from tests.unit.workers.netns.space import HOST, ip, options
from tests.unit.workers.netns.test_build import make
from workers.netns import build
from workers.netns.forked_task import WithDescriptor
from workers.netns.main import main
from workers.netns.plan import read_plan
from workers.netns.record import Record
from workers.netns.remove import remove_made
from workers.netns.work import work

pytestmark = [needs_root, needs_ip]
KILLED = 9


@pytest.fixture
def record() -> Iterator[int]:
    fd = os.memfd_create("record", os.MFD_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "setup"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def task(wanted: dict[str, Any], record: int, *, is_ready: bool = False, ran_script: bool = False) -> dict[str, Any]:
    """Return the result of a task; `problem` if it fails."""

    def run() -> dict[str, Any]:
        try:
            how = {"is_ready": is_ready, "runs_script": False, "ran_script": ran_script}
            found: Any = work(wanted, record, (), -1, **how)
        except (SpawnError, OSError) as error:
            return {"problem": str(error)}
        result: dict[str, Any] = found.value if isinstance(found, WithDescriptor) else found
        return result

    return in_child(run)


def status_of(function: Callable[[], object]) -> int:
    """The exit status of a child that calls it."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(111)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def cut_off(wanted: dict[str, Any], record: int, is_ready: bool = False) -> None:
    """A task that is killed when it has made the link."""

    def run() -> None:
        build._Builder._host_end = lambda *_: os._exit(KILLED)  # type: ignore[method-assign]
        work(wanted, record, (), -1, is_ready=is_ready, runs_script=False, ran_script=False)

    assert status_of(run) == KILLED


@pytest.mark.parametrize("is_ready", [False, True])
def test_the_script_is_run_on_a_link_whose_maker_was_killed(
    name: str, record: int, script: str, is_ready: bool
) -> None:
    wanted = options(name, setup=script)
    if is_ready:
        assert task(wanted, record)["script"] == script
        assert task(wanted, record, ran_script=True)["script"] == ""
        ip("link", "del", name)
    cut_off(wanted, record, is_ready)
    found = task(wanted, record)
    assert (found["made_link"], found["script"]) == (False, script)
    assert task(wanted, record, ran_script=True)["script"] == ""
    assert Record(record).facts.is_set_up
    assert Record(record).facts.made == ()


def test_what_a_start_that_was_cut_off_has_made_goes_when_no_start_succeeds(name: str, record: int) -> None:
    wanted = options(name, dns={"nameservers": [HOST]})
    cut_off(wanted, record)
    assert (names(name), count_links(name)) == ([name], 1)
    assert in_child(lambda: remove_made(read_plan(wanted), Record(record))) == []
    assert (names(name), count_links(name), os.path.exists(f"/etc/netns/{name}")) == ([], 0, False)
    assert Record(record).facts.made == ()


def test_what_was_there_before_stays_when_no_start_succeeds(name: str, record: int) -> None:
    ip("netns", "add", name)
    cut_off(options(name), record)
    assert in_child(lambda: remove_made(read_plan(options(name)), Record(record))) == []
    assert (names(name), count_links(name)) == ([name], 0)


def test_what_a_start_has_undone_itself_is_nobodys(name: str, record: int) -> None:
    wrong = options(name, routes=[{"to": "0.0.0.0/0", "via": "10.99.99.1"}])
    assert "cannot add route" in task(wrong, record)["problem"]
    assert Record(record).facts.made == ()


@pytest.mark.parametrize("signums", [(signal.SIGTERM,), (signal.SIGUSR1, signal.SIGTERM)])
def test_a_stop_that_comes_before_it_can_be_heard_removes_what_there_is(name: str, signums: tuple[int, ...]) -> None:
    wanted = options(name)
    make(wanted)

    def worker() -> None:
        block_all()
        given = os.memfd_create("options")
        os.write(given, json.dumps(wanted).encode())
        os.dup2(given, 3)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="options")
        os.environ.pop("NOTIFY_SOCKET", None)
        for signum in signums:
            os.kill(os.getpid(), signum)
        os._exit(main())

    assert status_of(worker) == 0
    assert (names(name), count_links(name)) == ([], 0)
