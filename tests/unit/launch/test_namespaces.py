"""Namespaces are joined or made, and mounts changed in them, as the operations of a plan say."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor.launch.operations import Kind, operation
from supervisor.linux.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWUTS,
    MS_BIND,
    MS_NOEXEC,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
    unshare,
)
from supervisor.process.fork import fork
from tests.unit.process.conftest import world
from tests.unit.process.launched import PYTHON, Outcome, service, start
from tests.unit.process.requirements import needs_root
from tests.unit.waiting import wait_exit

pytestmark = needs_root
__all__ = ["world"]

TYPES = {"net": CLONE_NEWNET, "ipc": CLONE_NEWIPC, "uts": CLONE_NEWUTS}
LINKS = "readlink /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/uts"


def shell(script: str, *more: bytes, **changes: Any) -> Outcome:
    outcome = start(service(), ("/bin/sh", "-c", script), more=more, **changes)
    assert outcome.failure is None, outcome.failure
    return outcome


def namespaces(*more: bytes, **changes: Any) -> dict[str, bool]:
    """Whether the program is in another namespace than this test, by type."""
    links = shell(LINKS, *more, **changes).output.split()
    return {name: os.readlink(f"/proc/self/ns/{name}") != link for name, link in zip(TYPES, links, strict=True)}


def making(types: int) -> bytes:
    return operation(Kind.MAKE_NAMESPACES, "make namespaces", numbers=[types])


@contextmanager
def process_in_other_namespaces() -> Iterator[int]:
    """A process in new namespaces of all three types."""
    wait_r, wait_w = os.pipe()
    ready_r, ready_w = os.pipe()

    def child() -> None:
        os.close(wait_w)
        unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
        os.close(ready_w)
        os.read(wait_r, 1)
        os._exit(0)

    pid = fork(child)
    os.close(ready_w)
    os.read(ready_r, 1)
    try:
        yield pid
    finally:
        for fd in (wait_r, wait_w, ready_r):
            os.close(fd)
        wait_exit(pid)


def test_namespaces_are_made() -> None:
    for name, flag in TYPES.items():
        assert namespaces(making(flag)) == {other: other == name for other in TYPES}
    assert namespaces(making(CLONE_NEWIPC | CLONE_NEWUTS)) == {"net": False, "ipc": True, "uts": True}


def test_the_loopback_device_of_a_new_network_namespace_is_up() -> None:
    script = (
        "import socket; at = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(at.getsockname()); print(socket.if_nameindex())"
    )
    outcome = start(service(), (PYTHON, "-ISc", script), more=[making(CLONE_NEWNET)])
    assert outcome.output == "[(1, 'lo')]\n"


@pytest.mark.parametrize("name", sorted(TYPES))
def test_a_namespace_is_joined_by_its_descriptor(name: str) -> None:
    with process_in_other_namespaces() as pid, open(f"/proc/{pid}/ns/{name}") as file:
        joining = operation(Kind.JOIN_NAMESPACE, "join", numbers=[3, TYPES[name]])
        outcome = shell(f"{LINKS}; ls /proc/self/fd", joining, fds=(("ns", file.fileno()),))
        links, numbers = outcome.output.split()[:3], outcome.output.split()[3:]
        expected = [os.readlink(f"/proc/{pid if other == name else 'self'}/ns/{other}") for other in TYPES]
    assert links == expected
    assert numbers == ["0", "1", "2", "3"]  # the last is that of the folder


def test_a_namespace_is_joined_by_its_path() -> None:
    with process_in_other_namespaces() as pid:
        path = f"/proc/{pid}/ns/uts"
        entering = operation(Kind.ENTER_NAMESPACE, "enter", path, [CLONE_NEWUTS])
        assert namespaces(entering) == {"net": False, "ipc": False, "uts": True}


def test_a_namespace_of_another_type_is_refused() -> None:
    with open("/proc/self/ns/uts") as file:
        joining = operation(Kind.JOIN_NAMESPACE, "join", numbers=[3, CLONE_NEWIPC])
        outcome = start(service(), ("/bin/true",), more=[joining], fds=(("ns", file.fileno()),))
    assert outcome.failed_step == ("join", "", errno.EINVAL)


def test_a_descriptor_that_is_not_open_is_told() -> None:
    joining = operation(Kind.JOIN_NAMESPACE, "join", numbers=[77, CLONE_NEWIPC])
    assert start(service(), ("/bin/true",), more=[joining]).failed_step == ("join", "", errno.EBADF)


# mounts


def mount(source: str, target: str, flags: int, kind: str = "", options: str = "") -> bytes:
    return operation(Kind.MOUNT, "mount", target, [flags], [source, target, kind, options])


OWN_MOUNTS = (operation(Kind.MOUNT_NAMESPACE, "make a mount namespace"), mount("none", "/", MS_SLAVE | MS_REC))


def test_a_file_system_of_its_own(world: Path) -> None:
    path = str(world)
    more = (*OWN_MOUNTS, mount("tmpfs", path, 0, "tmpfs", "size=64k,mode=755,uid=65534"))
    outcome = shell(f"echo x > {path}/file; stat -f -c %T {path}; grep -c ' {path} ' /proc/self/mounts", *more)
    assert outcome.output == "tmpfs\n1\n"
    assert os.listdir(path) == []
    assert f" {path} " not in Path("/proc/self/mounts").read_text()


def test_a_folder_that_is_only_read(world: Path) -> None:
    path = str(world)
    more = (*OWN_MOUNTS, mount(path, path, MS_BIND), mount("none", path, MS_REMOUNT | MS_BIND | MS_RDONLY))
    outcome = start(service(uid=0, gid=0), ("/bin/sh", "-c", f"touch {path}/file"), more=more)
    assert outcome.output.endswith("Read-only file system\n")
    (world / "file").touch()


def test_a_program_where_nothing_is_executed(world: Path) -> None:
    path, program = str(world), world / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert start(service(), (str(program),), more=OWN_MOUNTS).failure is None
    more = (*OWN_MOUNTS, mount(path, path, MS_BIND), mount("none", path, MS_REMOUNT | MS_BIND | MS_NOEXEC))
    cause = "Permission denied: its file system is mounted with noexec (EACCES)"
    assert str(start(service(), (str(program),), more=more).failure) == f"cannot exec '{program}': {cause}"


def test_no_mount_goes_out() -> None:
    assert "shared:" not in shell("cat /proc/self/mountinfo", *OWN_MOUNTS).output


def test_a_mount_that_fails_is_told() -> None:
    outcome = start(service(), ("/bin/true",), more=[*OWN_MOUNTS, mount("tmpfs", "/nowhere", 0, "tmpfs")])
    assert outcome.failed_step == ("mount", "/nowhere", errno.ENOENT)


def test_the_mount_namespace_is_another_one() -> None:
    link = shell("readlink /proc/self/ns/mnt", OWN_MOUNTS[0]).output.strip()
    assert link.startswith("mnt:")
    assert link != os.readlink("/proc/self/ns/mnt")
