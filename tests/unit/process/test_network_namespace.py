from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.definitions.service import Descriptor, Service
from supervisor.process.held_descriptors import Table, close_descriptor, open_descriptor
from supervisor.process.network_namespace import (
    enter_namespace,
    namespace_of_name,
    namespace_of_process,
    namespace_of_socket,
    run_in_namespace,
)
from tests.unit.closing import PatientCloser
from tests.unit.process.forked import in_child, open_numbers, step_error
from tests.unit.process.launched import service, told
from tests.unit.process.netns import network_namespace
from tests.unit.process.requirements import needs_ip, needs_root

pytestmark = [needs_root, needs_ip]


@pytest.fixture(scope="module")
def netns() -> Iterator[str]:
    with network_namespace() as name:
        yield name


def inode(of: str = "thread-self") -> int:
    return os.stat(f"/proc/{of}/ns/net").st_ino


def test_a_socket_is_made_there_and_we_stay_here(netns: str) -> None:
    here, tasks, before = inode(), os.listdir("/proc/self/task"), open_numbers()
    opened = open_descriptor(Descriptor("tcp", host="127.0.0.1", netns=netns))
    assert inode() == here
    assert os.listdir("/proc/self/task") == tasks
    with socket.socket(fileno=os.dup(opened.fd)) as sock:
        address = sock.getsockname()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)
    run_in_namespace(netns, lambda: socket.create_connection(address, 5).close())
    close_descriptor(opened, PatientCloser())
    assert open_numbers() == before


def test_none_is_here() -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("no thread is needed")

    start, threading.Thread.start = threading.Thread.start, refuse  # type: ignore[assignment]
    try:
        close_descriptor(open_descriptor(Descriptor("udp", host="127.0.0.1", netns=None)), PatientCloser())
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]


def test_errors_come_out_as_they_are(netns: str) -> None:
    before = open_numbers()
    spec = Descriptor("udp", host="192.0.2.1", port=69, netns=netns)
    assert step_error(lambda: open_descriptor(spec)) == ("bind udp 192.0.2.1:69", "", errno.EADDRNOTAVAIL)
    assert open_numbers() == before


def test_no_such_namespace() -> None:
    spec = Descriptor("udp", host="127.0.0.1", netns="spawnd-nowhere")
    path = "/run/netns/spawnd-nowhere"
    assert step_error(lambda: open_descriptor(spec)) == ("enter network namespace", path, errno.ENOENT)


def test_what_is_no_namespace() -> None:
    name = "../../etc/passwd"
    error = in_child(lambda: step_error(lambda: enter_namespace(name)))
    assert error == ("enter network namespace", f"/run/netns/{name}", errno.EINVAL)


def test_which_namespace_somebody_is_in(netns: str) -> None:
    opened = open_descriptor(Descriptor("tcp", host="127.0.0.1", netns=netns))
    own = open_descriptor(Descriptor("tcp", host="127.0.0.1"))
    there, here = namespace_of_name(netns), namespace_of_process(os.getpid())
    assert there is not None
    assert here is not None
    assert there != here
    assert (namespace_of_socket(opened.fd), namespace_of_socket(own.fd)) == (there, here)
    for each in (opened, own):
        close_descriptor(each, PatientCloser())


def test_which_namespace_nobody_is_in() -> None:
    with open("/dev/null") as null:
        assert namespace_of_socket(null.fileno()) is None
    assert namespace_of_name("spawnd-nowhere") is None
    assert namespace_of_process(2**22 + 1) is None


@pytest.fixture
def resolver(netns: str) -> Iterator[Path]:
    folder = Path(f"/etc/netns/{netns}")
    folder.mkdir(parents=True)
    try:
        (folder / "resolv.conf").write_text("nameserver 192.0.2.53\n")
        yield folder / "resolv.conf"
    finally:
        shutil.rmtree(folder)


def mounted() -> int:
    """How much is mounted on resolv.conf."""
    return Path("/proc/self/mountinfo").read_text().count(" /etc/resolv.conf ")


def test_a_service_inside_has_the_resolver_of_its_namespace(netns: str, resolver: Path) -> None:
    mounts, own = mounted(), Path("/etc/resolv.conf").read_text()

    def look() -> tuple[str, int]:
        return Path("/etc/resolv.conf").read_text(), mounted()

    assert told(service(netns=netns), look) == ["nameserver 192.0.2.53\n", mounts + 1]
    assert mounted() == mounts
    assert Path("/etc/resolv.conf").read_text() == own


def test_a_namespace_without_a_resolver_leaves_the_mounts_alone(netns: str) -> None:
    before = os.stat("/proc/self/ns/mnt").st_ino
    assert told(service(netns=netns), lambda: os.stat("/proc/self/ns/mnt").st_ino) == before


def connect_in(name: str, address: tuple[str, int]) -> socket.socket:
    """A client of a socket in a network namespace."""

    def connect() -> socket.socket:
        return socket.create_connection(address, timeout=60)

    return run_in_namespace(name, connect)


def test_sockets_are_displaced_when_another_namespace_has_the_name() -> None:
    with network_namespace() as name:
        service = Service(
            "a",
            exec="/a",
            fd=(Descriptor("tcp", host="127.0.0.1", netns=name), Descriptor("tcp", host="127.0.0.1", netns=None)),
        )
        table = Table(PatientCloser())
        table.open_missing(service)
        assert not table.is_displaced
        kept = table.fd(4)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        with socket.socket(fileno=os.dup(table.fd(3))) as listener:
            clients = [connect_in(name, listener.getsockname()) for _ in range(2)]
        assert not table.is_awaited, "the next process takes them"
        subprocess.run(["ip", "netns", "delete", name], check=True)
        assert not table.is_displaced, "nobody has the name"
        subprocess.run(["ip", "netns", "add", name], check=True)
        assert table.is_displaced
        assert table.is_awaited
        assert table.close_displaced() == ["2 clients of tcp 127.0.0.1:0"]
        for client in clients:
            client.close()
        assert list(table.missing(service)) == [3]
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        table.open_missing(service)
        assert not table.is_displaced
        assert table.fd(4) == kept
        table.close()
