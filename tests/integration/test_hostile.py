"""Descriptors that services and strangers leave for spawnd to close or inspect: it goes on, and no client waits."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable

import pytest

from tests import fuse
from tests.daemon import Daemon, children
from tests.unit.varlink.lingering import lingering, pass_on
from tests.unit.waiting import HELD_UP, child_process, wait_exit

Start = Callable[..., Daemon]
Program = Callable[[str, str], str]

HEAD = f"""#!{sys.executable} -IS
import array, os, select, socket, sys, time
def send(text, fds=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    notify.sendmsg([text], rights)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ.get("NOTIFY_SOCKET", ""))
"""
SLEEP = 'exec = "/bin/sleep", arg = {"100000"}'


def test_a_stop_does_not_wait_for_what_clients_left(spawnd: Start) -> None:
    daemon = spawnd(f'a = {{ {SLEEP}, fd = {{ stream("@/socket"), dgram("@/datagrams") }} }}')
    daemon.wait_running("a")
    started = time.monotonic()
    with lingering() as one, lingering() as other, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.folder / "socket"))
        pass_on(client, one)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(daemon.folder / "datagrams"))
            pass_on(sender, other)
        for command in ("stop", "start", "restart"):
            assert daemon.ctl(command, "a").returncode == 0
        assert daemon.state("a") == "running"
        assert time.monotonic() - started < HELD_UP


def test_a_flood_of_what_lingers_makes_no_threads_and_few_children(spawnd: Start, program: Program) -> None:
    flood = program(
        "floods",
        HEAD
        + """
while True:
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\x3c\\0\\0\\0")
    send(b"STATUS=x", [client.fileno()])
    client.close()
""",
    )
    daemon = spawnd(f'a = {{ exec = "{flood}", fdstore_max = 1 }}')
    pid = daemon.wait_running("a")
    for _ in range(20):
        assert daemon.answers()
        assert len(os.listdir(f"/proc/{daemon.pid}/task")) == 1
        assert len(children(daemon.pid)) < 8
    assert daemon.ctl("reexec").returncode == 0
    assert daemon.pid_of("a") == pid


@pytest.mark.parametrize("maximum", [0, 300])
def test_a_huge_epoll_is_neither_stored_nor_read(spawnd: Start, program: Program, maximum: int) -> None:
    """Neither where there is room nor where there is none."""
    script = program(
        "polls",
        HEAD
        + """
epoll, event = select.epoll(), os.eventfd(0)
for _ in range(900):
    epoll.register(os.dup(event), 0)
for _ in range(20):
    send(b"FDSTORE=1", [epoll.fileno()] * 253)
send(b"READY=1")
time.sleep(100000)
""",
    )
    daemon = spawnd(f'a = {{ exec = "{script}", ready = "notify", fdstore_max = {maximum} }}')
    daemon.wait_running("a")
    assert "eventpoll" not in daemon.ctl("fds", "a").stdout


@pytest.mark.skipif(not fuse.is_possible(), reason="needs FUSE")
def test_a_file_whose_server_does_not_answer_keeps_no_service_from_starting(spawnd: Start, program: Program) -> None:
    """Had spawnd the file, each of its children would wait for the server when it closes that: none would start."""
    script = program(
        "stores",
        HEAD
        + """
send(b"FDSTORE=1", [os.memfd_create("x"), os.open(sys.argv[1], os.O_RDWR)])
send(b"READY=1")
time.sleep(100000)
""",
    )
    with fuse.unanswering(fuse.FLUSH) as path:
        daemon = spawnd(
            f"""
            a = {{ exec = "{script}", arg = {{ "{path}" }}, user = "root", ready = "notify", fdstore_max = 9 }}
            b = {{ {SLEEP}, depends = {{ "a" }} }}
            """
        )
        daemon.wait_running("b")
        assert path not in daemon.ctl("fds", "a").stdout
        for command in (("restart", "b"), ("reexec",), ("restart", "b")):
            assert daemon.ctl(*command, timeout=HELD_UP).returncode == 0


@pytest.mark.parametrize("is_late", [False, True])
def test_a_stored_file_whose_path_is_too_long_holds_up_no_stop(spawnd: Start, program: Program, is_late: bool) -> None:
    """A path over 4096 bytes is no name in /proc.  The service moves the file there before or after it is stored."""
    script = program(
        "moves",
        HEAD
        + f"""
import fcntl, struct, termios
top = folder = os.open(sys.argv[1], os.O_RDONLY)
os.mkdir("a", dir_fd=top)
file = os.open("a/file", os.O_CREAT | os.O_RDWR, dir_fd=top)
for _ in range(18):
    os.mkdir("d" * 250, dir_fd=folder)
    folder = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
def store():
    send(b"FDSTORE=1\\nFDNAME=x", [file])
if {is_late}:
    store()
    while struct.unpack("i", fcntl.ioctl(notify, termios.TIOCOUTQ, bytes(4)))[0]:  # not taken yet
        time.sleep(0.01)
os.rename("a", "a", src_dir_fd=top, dst_dir_fd=folder)
if not {is_late}:
    store()
send(b"READY=1")
time.sleep(100000)
""",
    )
    with tempfile.TemporaryDirectory(dir="/var/tmp") as top:
        a = f'exec = "{script}", arg = {{ "{top}" }}, user = "root", ready = "notify", fdstore_max = 9'
        daemon = spawnd(f"a = {{ {a} }}")
        daemon.wait_running("a")
        assert "unknown" in daemon.ctl("fds", "a").stdout
        assert daemon.ctl("stop", "a", timeout=HELD_UP).returncode == 0
        assert daemon.state("a") == "stopped"
        assert "Traceback" not in daemon.log()


def test_many_that_are_the_same_do_not_delay_the_next_spawnd(spawnd: Start, program: Program) -> None:
    """It looks for what it had at the numbers that this had, and at so many others."""
    script = program(
        "holds",
        HEAD
        + """
epoll, event = select.epoll(), os.eventfd(0)
for _ in range(500):
    epoll.register(os.dup(event), 0)
for _ in range(300):
    os.dup(epoll.fileno())
send(b"FDSTORE=1\\nFDNAME=memory", [os.memfd_create("memory")])
send(b"READY=1")
time.sleep(100000)
""",
    )
    daemon = spawnd(f'a = {{ exec = "{script}", fd = {{ tcp("127.0.0.1", 0) }}, ready = "notify", fdstore_max = 9 }}')
    pid = daemon.wait_running("a")
    daemon.lose()
    started = time.monotonic()
    daemon.again()
    assert time.monotonic() - started < HELD_UP
    assert daemon.pid_of("a") == pid
    assert "not got back" not in daemon.log()


def test_a_refused_client_s_descriptors_do_not_hold_up_an_exec(spawnd: Start) -> None:
    """Unread data goes with the connection when spawnd becomes another program."""
    daemon = spawnd(f"a = {{ {SLEEP} }}")
    pid = daemon.wait_running("a")
    started = time.monotonic()
    with lingering() as sock, socket.socket(socket.AF_UNIX) as client:

        def connect() -> None:
            os.setresuid(65534, 65534, 65534)
            client.connect(str(daemon.socket))
            pass_on(client, sock)

        daemon.folder.chmod(0o711)
        with child_process(connect) as child:
            assert wait_exit(child) == 0
            sock.detach()
            assert daemon.ctl("reexec", timeout=HELD_UP).returncode == 0
            assert time.monotonic() - started < HELD_UP
            assert daemon.pid_of("a") == pid
