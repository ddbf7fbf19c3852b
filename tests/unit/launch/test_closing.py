"""A close of the acceptor waits for nobody, even if a client has left a descriptor that lingers in its connection."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import pytest

from supervisor.process.fork import fork
from tests.daemon import children, process_state
from tests.unit.launch.accepting import DEADLINE, Acceptor, sealed, tcp, wait_until
from tests.unit.launch.filters import Faults

LINGER = struct.pack("=ii", 1, 3600)
OWN = 3  # sockets of an acceptor without clients
KINDS = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET]


def unix(kind: int = socket.SOCK_STREAM) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind("")  # a name that the kernel chooses
    listener.listen(128)
    return listener


class Lingering:
    """A socket whose last close waits for the other end, `peer`, unless the process that closes it is ending."""

    def __init__(self) -> None:
        with tcp() as listener:
            self.socket = socket.create_connection(listener.getsockname(), DEADLINE)
            self.peer = listener.accept()[0]
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.socket.send(bytes(65536))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)

    def give(self, client: socket.socket, data: bytes = b"x", flags: int = 0) -> None:
        """Leave the socket in a connection, which alone has it then."""
        part = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", self.socket.fileno()))
        client.sendmsg([data], [part], flags)
        self.socket.close()

    def is_closed(self) -> bool:
        """Take what the other end gets, until its end."""
        self.peer.settimeout(DEADLINE)
        while self.peer.recv(1 << 20):
            pass
        return True

    def __enter__(self) -> Lingering:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.close()  # with unread data, so with a reset, after which the other end does not linger
        self.socket.close()


@pytest.fixture
def lingering() -> Iterator[Lingering]:
    with Lingering() as found:
        yield found


def give(lingering: Lingering, client: socket.socket) -> None:
    lingering.give(client)


def give_behind_data(lingering: Lingering, client: socket.socket) -> None:
    for size in (1, 20000, 3):
        client.sendall(bytes(size))
    lingering.give(client)


def give_behind_many(lingering: Lingering, client: socket.socket) -> None:
    for _ in range(40):
        client.send(b"x")
    lingering.give(client)


def give_out_of_band(lingering: Lingering, client: socket.socket) -> None:
    lingering.give(client, flags=socket.MSG_OOB if client.type is socket.SOCK_STREAM else 0)


def give_behind_nothing(lingering: Lingering, client: socket.socket) -> None:
    if client.type is socket.SOCK_SEQPACKET:
        client.send(b"")
        lingering.give(client, b"")
    else:
        lingering.give(client)


def give_with_a_reset(lingering: Lingering, client: socket.socket) -> None:
    """Close with unread data, so that the other end gets an error before what is in its queue."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lingering.give(client)
    client.close()


Give = Callable[[Lingering, socket.socket], None]
GIVES: list[Give] = [
    *(give, give_behind_data, give_behind_many, give_out_of_band, give_behind_nothing, give_with_a_reset),
]


def end_well(acceptor: Acceptor, lingering: Lingering, gives: Give, fds: set[str]) -> None:
    """Leave the socket, and see whether another client is answered soon, and nothing stays behind."""
    client = acceptor.connect()
    gives(lingering, client)
    acceptor.ask()
    with suppress(ConnectionResetError):
        if client.fileno() >= 0:
            assert client.recv(10) in (b"", b"no")
    client.close()
    wait_until(lambda: fds_of(acceptor) == fds)
    wait_until(lambda: not children(acceptor.pid))
    acceptor.ask()
    assert lingering.is_closed()


def fds_of(acceptor: Acceptor) -> set[str]:
    found = set()
    for fd in os.listdir(f"/proc/{acceptor.pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(f"{fd} {os.readlink(f'/proc/{acceptor.pid}/fd/{fd}')}")
    return found


def started(acceptor: Acceptor) -> set[str]:
    """Return the descriptors of an acceptor that waits for clients."""
    wait_until(lambda: Path(f"/proc/{acceptor.pid}/comm").read_text() == "acceptor\n")
    acceptor.ask()
    wait_until(lambda: not children(acceptor.pid) and sum("socket:" in fd for fd in fds_of(acceptor)) == OWN)
    return fds_of(acceptor)


def stopped(acceptor: Acceptor) -> Callable[[], None]:
    """Stop the acceptor, so that a client comes to send something; return what lets it go on."""
    os.kill(acceptor.pid, signal.SIGSTOP)
    wait_until(lambda: process_state(acceptor.pid) == "T")
    return lambda: os.kill(acceptor.pid, signal.SIGCONT)


def give_while_stopped(acceptor: Acceptor, gives: Give) -> Give:
    go_on = stopped(acceptor)

    def give_all(lingering: Lingering, client: socket.socket) -> None:
        gives(lingering, client)
        go_on()

    return give_all


@pytest.mark.parametrize("banner", [b"", b"no"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gives", GIVES)
def test_a_refused_client_holds_up_nobody(gives: Give, kind: int, banner: bytes, lingering: Lingering) -> None:
    with Acceptor(listener=unix(kind), only_from=(), refused_banner=sealed(banner), linger=None) as acceptor:
        fds = started(acceptor)
        end_well(acceptor, lingering, give_while_stopped(acceptor, gives), fds)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_without_a_session_holds_up_nobody(kind: int, lingering: Lingering) -> None:
    with Acceptor(("/none",), listener=unix(kind), linger=None) as acceptor:
        fds = started(acceptor)
        end_well(acceptor, lingering, give_while_stopped(acceptor, give), fds)


def test_a_client_for_whom_there_is_no_process_holds_up_nobody(lingering: Lingering) -> None:
    faults = Faults("clone")
    with closing(faults), Acceptor(listener=unix(), before=faults.install, linger=None) as acceptor:
        fds = started(acceptor)
        faults.errnos += [errno.EAGAIN] * 4  # of the session, and of the first children that are to close
        end_well(acceptor, lingering, give_while_stopped(acceptor, give), fds)
        assert not faults.errnos


def test_a_client_for_whom_there_is_no_descriptor_holds_up_nobody(lingering: Lingering) -> None:
    with Acceptor(listener=unix(), linger=None) as acceptor:
        fds = started(acceptor)
        limits = resource.prlimit(acceptor.pid, resource.RLIMIT_NOFILE)
        numbers = {int(fd.split()[0]) for fd in fds}
        go_on = stopped(acceptor)
        resource.prlimit(acceptor.pid, resource.RLIMIT_NOFILE, (min(set(range(100)) - numbers), limits[1]))

        def give_and_end(lingering: Lingering, client: socket.socket) -> None:
            give(lingering, client)
            go_on()
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
            resource.prlimit(acceptor.pid, resource.RLIMIT_NOFILE, limits)

        end_well(acceptor, lingering, give_and_end, fds)


def test_the_end_of_a_session_holds_up_nobody() -> None:
    """The session may have ended by the time its acceptor goes on, which then must not have the connection."""
    with Acceptor(("/bin/true",), listener=unix(), linger=None) as acceptor:
        fds = started(acceptor)
        for _ in range(40):
            with Lingering() as lingering, acceptor.connect() as client:
                with suppress(BrokenPipeError):
                    give(lingering, client)
                assert acceptor.ask() == b""
        wait_until(lambda: acceptor.counters().sessions == 0)
        wait_until(lambda: fds_of(acceptor) == fds)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_client_has_sent_reaches_its_session(kind: int, lingering: Lingering) -> None:
    script = (
        "import socket\nwith socket.socket(fileno=0) as connection:\n"
        " data, fds, *_ = socket.recv_fds(connection, 10, 2)\n connection.sendall(data + bytes([len(fds) + 48]))"
    )
    with Acceptor(("/usr/bin/python3", "-ISc", script), listener=unix(kind)) as acceptor, acceptor.connect() as client:
        give(lingering, client)
        assert client.recv(10) == b"x1"


@pytest.mark.parametrize("kind", KINDS)
def test_plain_data_of_refused_clients_take_no_child(kind: int) -> None:
    faults = Faults("clone")
    with closing(faults), Acceptor(listener=unix(kind), only_from=(), before=faults.install) as acceptor:
        started(acceptor)
        faults.errnos += [errno.EAGAIN]
        for _ in range(20):
            go_on = stopped(acceptor)
            with acceptor.connect() as client:
                for size in (20000, 0, 3):
                    client.send(bytes(size))
                go_on()
                assert client.recv(1) == b""  # and no reset
        assert faults.errnos == [errno.EAGAIN]


def test_a_client_that_goes_on_sending_holds_up_nobody() -> None:
    with Acceptor(only_from=(), refused_banner=sealed(b"no")) as acceptor, ExitStack() as stack:
        for _ in range(2):
            stack.callback(partial(kill, fork(partial(go_on_sending, acceptor))))
        for _ in range(20):
            with acceptor.connect() as client:
                assert client.recv(10) == b"no"


def go_on_sending(acceptor: Acceptor) -> None:
    while True:
        with suppress(OSError), acceptor.connect() as client:
            while True:
                client.sendall(bytes(1 << 20))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
