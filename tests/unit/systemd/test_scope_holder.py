"""Scopes as cgroups: found, named, with a holder.  That systemd makes them is seen in machines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from supervisor.process.cgroup import Subtree, folder_name
from supervisor.process.fork import fork
from supervisor.systemd import scope
from supervisor.systemd.scope import (
    HOLDER_LEAF,
    be_holder,
    find_scope,
    holder_of,
    make_scope_command,
    move_holder,
    place_of,
    scope_name,
)
from tests.unit.process import cgroups
from tests.unit.process.forked import step_error
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import child_process, wait_until

pytestmark = needs_root
NAME = f"spawnd-test-{os.getpid()}.scope"  # all slices of the machine are searched for it


@pytest.fixture
def a_slice() -> Iterator[Subtree]:
    with cgroups.subtree(".slice") as made:
        yield made


def make_scope(parent: Subtree) -> str:
    path = f"{parent.path}/{NAME}"
    os.mkdir(path)
    os.setxattr(path, "user.delegate", b"1")
    return path


def idle() -> None:
    signal.pause()


@pytest.mark.parametrize(
    ("cgroup", "place"),
    [
        ("/system.slice/spawnd.service", ("system.slice", "spawnd.service")),
        ("/system.slice/system-cm4all.slice/x.service", ("system-cm4all.slice", "x.service")),
        ("/spawnd.service", ("-.slice", "spawnd.service")),
        ("/user.slice/user-0.slice/session-1.scope", ("system.slice", "")),
        ("/user.slice/user-0.slice/user@0.service/app.slice/x.service", ("system.slice", "")),
        ("/user.slice/user-0.slice/user@0.service/init.scope", ("system.slice", "")),
        ("/", ("system.slice", "")),
        ("", ("system.slice", "")),
    ],
)
def test_the_scope_is_in_the_slice_of_spawnd_s_unit(cgroup: str, place: tuple[str, str]) -> None:
    assert place_of(cgroup) == place


def test_each_run_time_folder_has_a_scope() -> None:
    assert scope_name("/run/spawnd", "/run/spawnd") == "spawnd-services.scope"
    names = {scope_name(folder, "/run/spawnd") for folder in ("/run/spawnd", "/tmp/a", "/tmp/b", "/tmp/\xe4")}
    assert len(names) == 4
    assert all(name.startswith("spawnd-services") and name.endswith(".scope") and len(name) < 256 for name in names)


def test_the_command_orders_the_scope_before_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "cgroup_of", lambda _pid: "/")
    command = make_scope_command("x.scope", "/run/x")
    assert command[-3:] == scope.KEEP
    assert {"--scope", "--unit=x.scope", "--slice=system.slice", "--property=Before=spawnd.service"} <= set(command)
    monkeypatch.setattr(scope, "cgroup_of", lambda _pid: "/my.slice/spawnd@b.service")
    command = make_scope_command("x.scope", "/run/x")
    assert {"--slice=my.slice", "--property=Before=spawnd.service spawnd@b.service"} <= set(command)


def test_no_service_has_the_keeper_s_leaf() -> None:
    assert HOLDER_LEAF not in (folder_name(name) for name in ("keeper", "_keeper", "__keeper"))


def test_a_scope_is_found_in_whichever_slice(a_slice: Subtree) -> None:
    inner = f"{a_slice.path}/inner.slice"
    os.mkdir(inner)
    path = make_scope(Subtree(inner))
    assert find_scope(NAME) is None, "it is empty: systemd is about to remove it"
    with child_process(idle) as pid:
        move_holder(path, pid)
        assert find_scope(NAME) == path
        assert find_scope("y.scope") is None
        os.removexattr(path, "user.delegate")
        assert find_scope(NAME) is None, "not for us"


def test_a_scope_below_what_is_no_slice_is_another_s(a_slice: Subtree) -> None:
    inner = f"{a_slice.path}/container.service"
    os.mkdir(inner)
    path = make_scope(Subtree(inner))
    with child_process(idle) as pid:
        move_holder(path, pid)
        assert find_scope(NAME) is None


def test_the_keeper_has_a_leaf_of_its_own(a_slice: Subtree) -> None:
    path = make_scope(a_slice)
    assert holder_of(path) is None
    with child_process(idle) as pid:
        move_holder(path, pid)
        move_holder(path, pid)
        assert holder_of(path) == pid


def test_a_keeper_that_is_gone_cannot_be_moved(a_slice: Subtree) -> None:
    path = make_scope(a_slice)
    with child_process(lambda: None) as pid:
        os.waitpid(pid, 0)
        assert step_error(lambda: move_holder(path, pid))[0] == "move the holder to"


def test_becoming_the_keeper(a_slice: Subtree) -> None:
    path = make_scope(a_slice)
    pid = fork(lambda: be_holder(path))
    try:
        wait_until(lambda: command_line(pid) == b"sleep\0infinity\0" and links(pid) == {"/dev/null"})
        assert holder_of(path) == pid
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def links(pid: int) -> set[str]:
    """Return the open descriptors of a process, which its loader may be changing."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
