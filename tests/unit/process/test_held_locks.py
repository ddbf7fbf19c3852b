"""A process of a service that hangs in a system call on a descriptor of its table, with the lock that this takes.

It waits in a page fault of its buffer, which is a page of a file whose server does not answer.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.definitions.service import Descriptor, Service
from supervisor.notify.safe_close import Closer
from supervisor.process.held_descriptors import Table, close_descriptor, open_descriptor
from tests import fuse
from tests.unit.closing import PatientCloser, Reaper, Stopped
from tests.unit.waiting import child_process, wait_exit, wait_until

pytestmark = pytest.mark.skipif(not fuse.is_possible(), reason="needs root and /dev/fuse")
Call = Callable[[int, int], object]
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
for function in (libc.recv, libc.send):
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.read.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]


@contextmanager
def hanging(fd: int, call: Call) -> Iterator[None]:
    """While a process that shares `fd` hangs in `call(fd, address of its buffer)`."""
    ours, theirs = socket.socketpair()

    def hang() -> None:
        file = os.open(theirs.recv(1000), os.O_RDWR)
        address = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, file, 0)
        call(fd, address)

    with ours, theirs, child_process(hang) as pid, fuse.unanswering(fuse.READ) as path:
        ours.send(path.encode())
        wait_until(lambda: {"fuse", "fault"} <= set(re.findall("fuse|fault", Path(f"/proc/{pid}/stack").read_text())))
        yield


def run(action: Callable[[], object]) -> None:
    """Run it in a process of its own, which would hang rather than this one."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    assert wait_exit(pid) == 0


def test_a_receiver_of_datagrams(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    opened = open_descriptor(Descriptor("dgram", path=path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", path)
    with hanging(opened.fd, lambda fd, address: libc.recv(fd, address, 1, 0)):
        run(lambda: close_descriptor(opened, PatientCloser()))
    close_descriptor(opened, PatientCloser())


def test_a_sender() -> None:
    opened = open_descriptor(Descriptor("udp", host="127.0.0.1"))
    with socket.socket(fileno=os.dup(opened.fd)) as sock:
        sock.connect(sock.getsockname())
    with hanging(opened.fd, lambda fd, address: libc.send(fd, address, 1, socket.MSG_MORE)):
        run(lambda: close_descriptor(opened, PatientCloser()))
    close_descriptor(opened, PatientCloser())


def test_a_sender_while_the_port_is_asked_for() -> None:
    spec = Descriptor("udp", host="127.0.0.1")
    table = Table(PatientCloser())
    table.open_missing(Service("s", fd=(spec,)))
    fd = table.fd(3)
    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.connect(sock.getsockname())
    with hanging(fd, lambda fd, address: libc.send(fd, address, 1, socket.MSG_MORE)):
        run(lambda: table.as_bound(3, spec))
    table.close()


def test_a_reader(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    spec = Descriptor("file", path=str(tmp_path / "file"), access="r")
    closer = Closer(Stopped(), Reaper())
    table = Table(closer)
    table.open_missing(Service("s", fd=(spec,)))
    with hanging(table.fd(3), lambda fd, address: libc.read(fd, address, 1)):
        run(table.rewound)
        run(table.close)
    table.close()
