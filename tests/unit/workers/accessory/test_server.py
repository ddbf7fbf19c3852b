"""Traffic on the socket: malformed requests, many requests, clients that do not read."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER
from tests.daemon import children, process_state
from tests.unit.process.requirements import needs_root
from tests.unit.varlink.lingering import LINGER, lingering, pass_on
from tests.unit.waiting import wait_exit, wait_readable, wait_until
from tests.unit.workers.accessory.inode import MAPS, inodes
from tests.unit.workers.accessory.slow import send_inotify, send_packet_sockets
from tests.unit.workers.accessory.worker import Worker
from workers.accessory.client import RequestError, encode_request, take_reply
from workers.accessory.protocol import Command, encode_datagram, encode_packet, encode_reply, packets
from workers.accessory.server import MOST_STRANGERS

pytestmark = needs_root
StartWorker = Callable[..., Worker]
IPC = encode_request("a", ipc=True)
NAME = encode_packet(Command.NAME, b"a")
NOBODY = 65534
SPACE = socket.CMSG_SPACE(16 * 4)


@contextmanager
def plain(worker: Worker) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect("\0" + worker.address[1:])
        sock.settimeout(60)
        yield sock


def answer(sock: socket.socket) -> tuple[bytes, int]:
    """An answer, and how many descriptors came with it; closes them.  Existing clients receive into 1,024 bytes."""
    data, ancillary, flags, _ = sock.recvmsg(1024, SPACE)
    assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
    fds = [fd for _, _, raw in ancillary for (fd,) in struct.iter_unpack("=i", raw)]
    for fd in fds:
        os.close(fd)
    return data, len(fds)


def test_answers_to_the_byte(worker: StartWorker) -> None:
    with plain(worker()) as sock:
        sock.send(encode_request("a", ipc=True, pid=True, user=MAPS, lease=True))
        assert answer(sock) == (encode_reply((CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER), True), 4)
        sock.send(encode_request("a", user=MAPS, ipc=True))
        assert answer(sock) == (encode_reply((CLONE_NEWIPC, CLONE_NEWUSER), False), 2)
        sock.send(encode_request("a", lease=True))
        assert answer(sock) == (encode_reply((), True), 1)


def test_descriptors_come_in_their_order(worker: StartWorker) -> None:
    with plain(worker()) as sock:
        sock.send(encode_request("a", user=MAPS, pid=True, ipc=True, lease=True))
        data, ancillary, _, _ = sock.recvmsg(1024, SPACE)
        fds = list(array("i", ancillary[0][2]))
        kinds = [os.readlink(f"/proc/self/fd/{fd}").partition(":")[0] for fd in fds]
        take_reply(data, fds).close()
    assert kinds == ["ipc", "pid", "user", "pipe"]


@pytest.mark.parametrize(
    "datagram",
    [b"", b"x", b"x" * 100, encode_datagram([NAME, NAME]), encode_datagram([encode_packet(2)]), b"x" * 70000],
    ids=["empty", "short", "garbage", "twice", "nameless", "long"],
)
def test_a_malformed_request_is_answered_and_then_the_connection_ends(worker: StartWorker, datagram: bytes) -> None:
    running = worker()
    with plain(running) as sock, running.connect() as other:
        sock.send(datagram)
        with suppress(BrokenPipeError):  # where it has ended already
            sock.send(IPC)  # is not looked at any more, and costs nobody the answer
        ((response, text),) = packets(answer(sock)[0])
        assert (response, bool(text)) == (0, True)
        assert answer(sock) == (b"", 0)
        assert inodes(other.request("a", ipc=True))[0]


def test_what_asks_for_nothing_is_not_answered(worker: StartWorker) -> None:
    with plain(worker()) as sock:
        for datagram in (encode_datagram([]), encode_datagram([NAME]), encode_datagram([encode_packet(0), NAME])):
            sock.send(datagram)
        sock.send(encode_datagram([encode_packet(77, b"new"), NAME, encode_packet(2)]))
        assert answer(sock) == (encode_reply((CLONE_NEWIPC,), False), 1)


def test_a_refusal_leaves_the_connection_usable(worker: StartWorker) -> None:
    with worker().connect() as client:
        for _ in range(3):
            with pytest.raises(RequestError, match="uid_map"):
                client.request("a", user=b"junk")
        assert inodes(client.request("a", ipc=True))[0]


@pytest.mark.parametrize("name", ["", "a\n", "\x7f\0", "n\u00e4me", "n" * 65_536])
def test_a_malformed_name_leaves_a_client_usable(worker: StartWorker, name: str) -> None:
    with worker().connect() as client:
        for lease in (False, True):
            with pytest.raises(RequestError, match="NAME"):
                client.request(name, lease=lease)
        with pytest.raises(RequestError, match="NAME"):
            client.request("a", user=b" " * 65_536)
        assert inodes(client.request("\x7f", ipc=True))[0]
        assert inodes(client.request("n" * 65_000, ipc=True))[0]


def test_requests_are_answered_in_their_order(worker: StartWorker) -> None:
    requests = [encode_request("a", ipc=bool(n & 1), pid=True, lease=bool(n & 2)) for n in range(20)]
    with plain(worker()) as sock:
        for request in requests:
            sock.send(request)
        for n in range(len(requests)):
            kinds = (CLONE_NEWIPC, CLONE_NEWPID) if n & 1 else (CLONE_NEWPID,)
            assert answer(sock)[0] == encode_reply(kinds, bool(n & 2))


@pytest.mark.parametrize("size", [4097, 65000])
def test_large_datagrams(worker: StartWorker, size: int) -> None:
    with worker().connect() as client:
        name = "n" * size
        first = inodes(client.request(name, ipc=True, pid=True))
        assert first == inodes(client.request(name, ipc=True, pid=True))
        with pytest.raises(RequestError, match="uid_map"):
            client.request("a", user=b"0 0 1\n" * (size // 6))  # one line of it twice is no map


@pytest.mark.parametrize(("rights", "stays"), [("any", True), ("own", False)])
def test_descriptors_that_come_along_are_closed(worker: StartWorker, rights: str, stays: bool) -> None:
    running = worker(allow={"root": rights})
    with running.connect() as client:
        client.request("a", ipc=True).close()
    before = running.descriptors()
    read_end, write_end = os.pipe()
    for count in (1, 250):
        with plain(running) as sock:
            socket.send_fds(sock, [IPC], [write_end] * count)
            assert answer(sock)[1] == 1
            with suppress(BrokenPipeError):
                sock.send(IPC)
            assert answer(sock)[1] == stays
    with plain(running) as sock:
        socket.send_fds(sock, [b"garbage"], [write_end])
        answer(sock)
        assert answer(sock) == (b"", 0)
    os.close(write_end)
    wait_readable(read_end)
    assert os.read(read_end, 1) == b""
    os.close(read_end)
    wait_until(lambda: running.descriptors() <= before and not children_of(running))


def children_of(running: Worker) -> list[int]:
    """Processes that it has beside inits."""
    return [pid for pid in children(running.pid) if pid not in running.inits()]


PATIENCE = 15.0  # seconds for an answer, also on a busy machine; a worker that waits needs more than 20


@pytest.mark.parametrize("send", [send_packet_sockets, send_inotify])
@pytest.mark.parametrize("allow", [{"root": "any", "nobody": "own"}, {"root": "any"}], ids=["own", "nothing"])
@pytest.mark.parametrize("stays", [True, False], ids=["stays", "goes"])
def test_descriptors_that_take_long_to_close_cost_others_nothing(
    worker: StartWorker, send: Callable[[socket.socket, bytes], None], allow: dict[str, str], stays: bool
) -> None:
    running = worker(allow=allow)
    with ExitStack() as stack, running.connect() as client:
        strangers = []
        with stopped(running.pid):
            for _ in range(3):
                with as_nobody():
                    sock = stack.enter_context(plain(running))
                for _ in range(2 if send is send_packet_sockets else 1):
                    send(sock, b"garbage")
                strangers.append(sock)
            if not stays:
                for sock in strangers:
                    sock.close()
        took = []
        for _ in range(20):
            started = time.monotonic()
            client.request("a", ipc=True).close()
            took.append(time.monotonic() - started)
        assert len(children_of(running)) <= 1
        if stays:
            for sock in strangers:
                assert answer(sock)[0]
                assert answer(sock) == (b"", 0)  # at once, too
        os.kill(running.pid, signal.SIGUSR1)  # it ends without waiting
        assert wait_exit(running.pid, PATIENCE) == 0
        running.pid = 0
    assert max(took) < PATIENCE


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("allow", [{"root": "any"}, {"root": "own"}, {"nobody": "any"}], ids=["any", "own", "nothing"])
@pytest.mark.parametrize("nested", [False, True], ids=["", "nested"])
@pytest.mark.parametrize(
    ("datagrams", "stays"),
    [([IPC], True), ([b"garbage"], True), ([b"garbage", b""], True), ([b""], False), ([b"garbage", b""], False)],
    ids=["read", "not read", "behind nothing", "gone", "gone behind nothing"],
)
def test_a_socket_that_lingers_is_not_waited_for(
    worker: StartWorker, allow: dict[str, str], nested: bool, datagrams: list[bytes], stays: bool
) -> None:
    """The last close of such a socket would wait for its peer, which never reads; or that of what has it on its way."""
    running = worker(allow=allow)
    with lingering() as passed, plain(running) as sock:
        with stopped(running.pid):  # so that all are there before it looks
            for datagram in datagrams:
                sock.send(datagram)
            if nested:
                outer, peer = socket.socketpair()
                with peer:
                    pass_on(peer, passed)
                passed = outer
            pass_on(sock, passed, IPC)
            if not stays:
                sock.close()
        if stays:
            answer(sock)
        started = time.monotonic()
        with running.connect() as other, suppress(RequestError):  # who may not is told so
            other.request("b", ipc=True).close()
        assert time.monotonic() - started < LINGER / 2


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: process_state(pid) == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def goes_on(deaf: socket.socket) -> bool:
    """Send a request whose answer nobody reads; whether it was taken."""
    try:
        deaf.send(IPC)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def test_who_never_reads_is_dropped_and_nobody_else_notices(worker: StartWorker) -> None:
    running = worker()
    with plain(running) as deaf, running.connect() as other:
        while goes_on(deaf):
            assert inodes(other.request("a", ipc=True))[0]
        assert inodes(other.request("a", ipc=True))[0]


def test_who_hangs_up_costs_nothing(worker: StartWorker) -> None:
    running = worker()
    before = running.descriptors()
    for datagrams in ([], [IPC], [IPC, IPC, IPC], [encode_request("a", lease=True)]):
        with plain(running) as sock:
            for datagram in datagrams:
                sock.send(datagram)
    wait_until(lambda: running.descriptors() <= before + 1)  # the namespace


def test_half_closed_it_is_still_answered(worker: StartWorker) -> None:
    with plain(worker()) as sock:
        sock.send(IPC)
        sock.shutdown(socket.SHUT_WR)
        assert answer(sock)[1] == 1
        assert answer(sock) == (b"", 0)


def test_many_clients_at_once(worker: StartWorker) -> None:
    running = worker()
    clients = [running.connect() for _ in range(200)]
    assert len({inodes(client.request("a", ipc=True)) for client in clients}) == 1
    for client in clients:
        client.close()
    assert "Traceback" not in running.said()


def test_strangers_do_not_take_all_connections(worker: StartWorker) -> None:
    running = worker(allow={"nobody": "any"})
    with ExitStack() as stack:
        strangers = [stack.enter_context(plain(running)) for _ in range(MOST_STRANGERS + 5)]
        wait_until(lambda: sum(map(has_ended, strangers)) == 5)
        for sock in strangers[:10]:
            sock.send(IPC)
            ((response, text),) = packets(answer(sock)[0])
            assert (response, b"may not use" in text) == (0, True)
    with running.connect() as client, pytest.raises(RequestError, match="may not use"):
        client.request("a", ipc=True)


def has_ended(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))
