"""Use of services: connections, and the time of the processor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.linux.namespaces import CLONE_NEWNET, unshare
from supervisor.linux.socket_state import MOST_PORTS, tcp_connections
from supervisor.process.pids import continue_all, start_time, stop_all
from supervisor.process.use import Asked, Use, are_waited_for, look_at_use, read_use
from tests.daemon import wait_until
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root

SPINS = "import os, time\nif not os.fork():\n    end = time.monotonic() + .3\n    while time.monotonic() < end: pass\n"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, *command: str) -> subprocess.Popen[bytes]:
    process = stack.enter_context(subprocess.Popen(command, start_new_session=True))
    stack.callback(process.kill)
    stack.callback(process.send_signal, signal.SIGCONT)
    return process


@pytest.fixture
def main(stack: ExitStack) -> int:
    return started(stack, "/bin/sleep", "1000").pid


def asked(pid: int, *socks: socket.socket, frozen: frozenset[int] | None = None) -> Asked:
    sockets = tuple((sock.fileno(), "") for sock in socks)
    return Asked(pid, start_time(pid), "", sockets, frozen is not None, frozen or frozenset())


def use_of(pid: int, *socks: socket.socket) -> Use:
    return look_at_use({"s": asked(pid, *socks)})["s"]


def listening(stack: ExitStack, host: str = "127.0.0.1", family: int = socket.AF_INET) -> socket.socket:
    sock = stack.enter_context(socket.socket(family))
    sock.bind((host, 0))
    sock.listen()
    return sock


def client_of(stack: ExitStack, listener: socket.socket, host: str = "127.0.0.1") -> socket.socket:
    return stack.enter_context(socket.create_connection((host, listener.getsockname()[1])))


def test_connections_of_several_services_in_one_look(stack: ExitStack, main: int) -> None:
    one, two, none = (listening(stack) for _ in range(3))
    clients = [client_of(stack, sock) for sock in (one, two, two)]
    accepted = [stack.enter_context(sock.accept()[0]) for sock in (one, two, two)]
    found = look_at_use({"one": asked(main, one), "two": asked(main, two), "none": asked(main, none)})
    assert {name: use.connections for name, use in found.items()} == {"one": 1, "two": 2, "none": 0}
    assert found["two"].describe(False) == "2 connections"
    assert found["none"].describe(False) == ""
    assert found["none"].describe(True) == "clients wait"
    clients[1].close()  # the service has not closed its end
    assert use_of(main, two).connections == 2
    accepted[1].close()
    assert use_of(main, two).connections == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2", "127.0.0.1"])
def test_the_address_of_a_connection_counts(stack: ExitStack, main: int, host: str) -> None:
    listener = listening(stack, host)
    stack.enter_context(
        socket.create_connection((host.replace("0.0.0.0", "127.0.0.9"), listener.getsockname()[1]))
    )
    other = stack.enter_context(socket.socket())
    other.bind(("127.0.0.3", listener.getsockname()[1])) if host != "0.0.0.0" else other.bind(("127.0.0.3", 0))
    other.listen()
    found = look_at_use({"s": asked(main, listener), "other": asked(main, other)})
    assert (found["s"].connections, found["other"].connections) == (1, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_socket_for_both_kinds_of_addresses(stack: ExitStack, main: int, host: str) -> None:
    listener = listening(stack, "::", socket.AF_INET6)
    client_of(stack, listener, host)
    assert use_of(main, listener).connections == 1


def test_a_client_that_waits_counts_and_one_in_time_wait_does_not(stack: ExitStack, main: int) -> None:
    listener = listening(stack)
    assert not are_waited_for([listener.fileno()])
    client = client_of(stack, listener)
    assert are_waited_for([listener.fileno()])
    assert use_of(main, listener).connections == 1
    accepted = listener.accept()[0]
    assert not are_waited_for([listener.fileno()])
    accepted.close()  # first, so its end stays in TIME_WAIT
    client.close()
    wait_until(lambda: use_of(main, listener).connections == 0, "the end of the connection")


@pytest.mark.parametrize("count", [1, 2, 5, MOST_PORTS, MOST_PORTS + 1])
def test_any_number_of_ports(stack: ExitStack, count: int) -> None:
    listener, other = listening(stack), listening(stack)
    for sock in (listener, other):
        client_of(stack, sock)
    port = listener.getsockname()[1]
    for at in {0, count // 2, count - 1}:
        ports = [1] * count
        ports[at] = port
        found = [found for found, address in tcp_connections(socket.AF_INET, ports) if address == b"\x7f\0\0\1"]
        assert found.count(port) == 1
        assert (other.getsockname()[1] in found) is (count > MOST_PORTS)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("is_abstract", [False, True])
def test_unix_connections(stack: ExitStack, main: int, tmp_path: Path, kind: int, is_abstract: bool) -> None:
    def bound(name: str) -> socket.socket:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        sock.bind(f"\0{tmp_path}{name}" if is_abstract else str(tmp_path / name))
        sock.listen()
        return sock

    one, two = bound("one"), bound("two")
    clients = [stack.enter_context(socket.socket(socket.AF_UNIX, kind)) for _ in range(3)]
    for client in clients:
        client.connect(one.getsockname())
    assert use_of(main, one).connections == 0
    assert are_waited_for([one.fileno()])
    accepted = [stack.enter_context(one.accept()[0]) for _ in range(2)]
    found = look_at_use({"one": asked(main, one), "two": asked(main, two)})
    assert (found["one"].connections, found["two"].connections) == (2, 0)
    accepted[0].close()
    assert use_of(main, one).connections == 1


@needs_root
def test_a_client_of_another_network_namespace_is_seen_while_the_service_stands_still(
    stack: ExitStack, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen()
    text = "import socket, time; kept = socket.socket(fileno=0).accept(); print(flush=True); time.sleep(1000)"
    command = [sys.executable, "-ISc", text]
    service = stack.enter_context(
        subprocess.Popen(command, stdin=listener.fileno(), stdout=subprocess.PIPE, start_new_session=True)
    )
    stack.callback(service.kill)
    child = os.fork()
    if child == 0:
        unshare(CLONE_NEWNET)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            time.sleep(1000)
    stack.callback(os.waitpid, child, 0)
    stack.callback(os.kill, child, signal.SIGKILL)
    assert service.stdout is not None
    assert service.stdout.readline() == b"\n"  # it has accepted the client
    assert use_of(service.pid, listener).connections == 0
    members = {service.pid: start_time(service.pid)}
    stop_all(members)
    stopped = asked(service.pid, listener, frozen=frozenset(members))
    assert look_at_use({"s": stopped})["s"].describe(False) == "1 connection"
    continue_all(members)


def test_processes_and_their_time(stack: ExitStack) -> None:
    text = f"{SPINS}    os._exit(0)\nos.wait()\nprint(1, flush=True)\ntime.sleep(1000)"
    service = stack.enter_context(
        subprocess.Popen([sys.executable, "-ISc", text], stdout=subprocess.PIPE, start_new_session=True)
    )
    stack.callback(service.kill)
    assert service.stdout is not None
    assert service.stdout.readline()
    use = use_of(service.pid)
    assert use.processes == {service.pid: start_time(service.pid)}
    assert use.cpu_s is not None
    assert 0.01 < use.cpu_s < 30
    assert use.obstacle == ""


def test_a_living_child_counts(stack: ExitStack) -> None:
    text = f"{SPINS}    print(1, flush=True)\ntime.sleep(1000)"
    service = stack.enter_context(
        subprocess.Popen([sys.executable, "-ISc", text], stdout=subprocess.PIPE, start_new_session=True)
    )
    stack.callback(os.killpg, service.pid, signal.SIGKILL)
    assert service.stdout is not None
    assert service.stdout.readline()
    use = use_of(service.pid)
    assert len(use.processes) == 2
    assert use.cpu_s is not None
    assert use.cpu_s > 0.01


def test_a_stopped_process_is_an_obstacle(main: int) -> None:
    os.kill(main, signal.SIGSTOP)
    wait_until(lambda: "is stopped" in use_of(main).obstacle, "the stop")
    assert use_of(main).describe(False).startswith("a process of it is stopped")
    os.kill(main, signal.SIGCONT)


def test_a_process_that_is_gone_is_an_obstacle(main: int) -> None:
    gone = Asked(main, start_time(main) + 1, "", ())
    assert look_at_use({"s": gone})["s"].obstacle == "it does not show its processes"


def test_one_that_stands_still(stack: ExitStack, main: int) -> None:
    members = {main: start_time(main)}
    stop_all(members)
    assert look_at_use({"s": asked(main, frozen=frozenset(members))})["s"].obstacle == ""
    continue_all(members)
    wait_until(lambda: use_of(main).obstacle == "", "the continuation")


def test_one_that_does_not_stand_still(stack: ExitStack, main: int) -> None:
    assert look_at_use({"s": asked(main, frozen=frozenset([main]))})["s"].obstacle == "its processes do not stop"
    assert look_at_use({"s": asked(main, frozen=frozenset())})["s"].obstacle == "it starts processes"


def test_a_thread_that_still_runs_is_waited_for(stack: ExitStack) -> None:
    """A traced thread is no part of a stop; here a process that was never told to stop stands for it."""
    one, two = (started(stack, "/bin/sleep", "1000").pid for _ in range(2))
    stop_all({one: start_time(one)})
    both = {"one": asked(one, frozen=frozenset([one])), "two": asked(two, frozen=frozenset([two]))}
    found = look_at_use(both)
    assert (found["one"].obstacle, found["two"].obstacle) == ("", "its processes do not stop")


@needs_root
def test_a_namespace_that_cannot_be_entered_is_told(stack: ExitStack, main: int) -> None:
    listener = listening(stack)
    there = Asked(main, start_time(main), "", ((listener.fileno(), "spawn-test-missing"),))
    found = look_at_use({"s": there, "other": asked(main, listener)})
    assert found["s"].obstacle == "its connections cannot be seen: No such file or directory"
    assert found["other"].obstacle == ""


@needs_root
def test_a_dump_is_of_the_namespace(stack: ExitStack, main: int) -> None:
    listener = listening(stack)
    client_of(stack, listener)

    def run() -> int:
        unshare(CLONE_NEWNET)
        return use_of(main, listener).connections

    assert (use_of(main, listener).connections, in_child(run)) == (1, 0)


@pytest.mark.parametrize(("answer", "in_time"), [(b"", True), (b'{"s": [1', True), (b'{"s": [0, 1.0, {}, ""]}', False)])
def test_an_answer_that_is_not_complete(answer: bytes, in_time: bool) -> None:
    assert read_use(answer, in_time) == {}
    assert read_use(b'{"s": [1, null, {"7": 9}, "x"]}', True) == {"s": Use(1, None, {7: 9}, "x")}
