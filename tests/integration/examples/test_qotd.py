"""The quote-of-the-day example, with real clients."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.examples.program import NOBODY, SHIPPED, Program

QUOTES = set(SHIPPED.joinpath("quotes.txt").read_bytes().split(b"%\n"))
DEADLINE_S = 60.0
GOODBYES = 40  # answered clients that qotd waits for at once


class Qotd:
    """The descriptors of a qotd, which is started and killed on them like a service."""

    def __init__(self, examples: Path) -> None:
        self.path = examples / "qotd"
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp = socket.socket()
        self.files = [os.open(examples / name, os.O_RDONLY) for name in ("quotes.txt", "quotes.index")]
        self.udp.bind(("127.0.0.1", 0))
        self.tcp.bind(("127.0.0.1", 0))
        self.tcp.listen(200)
        self.program: Program | None = None

    def start(self) -> Program:
        self.program = Program(self.path, [self.udp.fileno(), self.tcp.fileno(), *self.files])
        return self.program

    def close(self) -> None:
        if self.program:
            self.program.kill()
        self.udp.close()
        self.tcp.close()
        for fd in self.files:
            os.close(fd)


Client = Callable[[], socket.socket]


@pytest.fixture
def qotd(examples: Path) -> Iterator[Qotd]:
    for name in ("quotes.txt", "quotes.index"):
        examples.joinpath(name).chmod(0o600)
    service = Qotd(examples)
    try:
        yield service
    finally:
        service.close()


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for sock in opened:
        sock.close()


@pytest.fixture
def connect(qotd: Qotd, sockets: list[socket.socket]) -> Client:
    def connected() -> socket.socket:
        sockets.append(socket.create_connection(qotd.tcp.getsockname(), DEADLINE_S))
        return sockets[-1]

    return connected


@pytest.fixture
def ask(qotd: Qotd, sockets: list[socket.socket]) -> Client:
    """A UDP client that has sent its request."""

    def asked() -> socket.socket:
        sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sockets[-1].settimeout(DEADLINE_S)
        sockets[-1].connect(qotd.udp.getsockname())
        sockets[-1].send(b"")
        return sockets[-1]

    return asked


def everything(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(4096):
        received += data
    return received


def write_index(examples: Path, quotes: Path, index: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([examples / "qotd-index", quotes, index], check=False, capture_output=True, text=True)


def test_the_index_that_ships_is_up_to_date(examples: Path, tmp_path: Path) -> None:
    assert write_index(examples, examples / "quotes.txt", tmp_path / "index").returncode == 0
    assert (tmp_path / "index").read_bytes() == (examples / "quotes.index").read_bytes()


def test_the_index_leads_to_every_quote_once(examples: Path) -> None:
    text = (examples / "quotes.txt").read_bytes()
    entries = struct.iter_unpack("!LL", (examples / "quotes.index").read_bytes())
    found = [text[offset : offset + length] for offset, length in entries]
    assert sorted(found) == sorted(QUOTES)


def test_a_percent_sign_inside_a_line_and_an_empty_quote_are_no_separate_quotes(examples: Path, tmp_path: Path) -> None:
    (tmp_path / "quotes").write_bytes(b"Sure at 100%\n%\n%\n\n%\nlast")
    assert write_index(examples, tmp_path / "quotes", tmp_path / "index").returncode == 0
    assert (tmp_path / "index").read_bytes() == struct.pack("!4L", 0, 13, 20, 4)


@pytest.mark.parametrize("quote", ["x" * 513, "caf\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_no_index_is_written_of_what_the_protocol_has_no_room_for(examples: Path, tmp_path: Path, quote: str) -> None:
    (tmp_path / "quotes").write_text(quote, encoding="utf-8")
    result = write_index(examples, tmp_path / "quotes", tmp_path / "index")
    assert result.returncode == 1
    assert "not at most 512 bytes of ASCII" in result.stderr
    assert not (tmp_path / "index").exists()


def test_every_datagram_is_answered_with_one_quote(qotd: Qotd, ask: Client) -> None:
    qotd.start()
    clients = [ask() for _ in range(20)]
    clients[0].send(b"again")
    assert {client.recv(2048) for client in [*clients, clients[0]]} <= QUOTES


def test_a_connection_gets_one_quote_and_is_closed(qotd: Qotd, connect: Client) -> None:
    qotd.start()
    answers = {everything(connect()) for _ in range(40)}
    assert answers <= QUOTES
    assert len(answers) > 1


@pytest.mark.parametrize("blocking", [True, False])
def test_it_works_with_sockets_in_either_mode(qotd: Qotd, connect: Client, ask: Client, blocking: bool) -> None:
    qotd.udp.setblocking(blocking)
    qotd.tcp.setblocking(blocking)
    qotd.start()
    assert everything(connect()) in QUOTES
    assert ask().recv(2048) in QUOTES


def test_offsets_that_an_earlier_process_left_behind_do_not_matter(qotd: Qotd, connect: Client) -> None:
    for fd in qotd.files:
        os.lseek(fd, 0, os.SEEK_END)
    qotd.start()
    assert everything(connect()) in QUOTES


def test_a_client_that_talks_first_gets_its_quote_and_no_reset(qotd: Qotd, connect: Client) -> None:
    client = connect()
    client.sendall(b"x" * 100_000)
    qotd.start()
    assert everything(client) in QUOTES
    client.sendall(b"still talking")


def test_clients_that_neither_read_nor_close_hold_up_nobody(qotd: Qotd, connect: Client, ask: Client) -> None:
    qotd.start()
    idle = [connect() for _ in range(GOODBYES + 10)]
    assert everything(connect()) in QUOTES
    assert ask().recv(2048) in QUOTES
    assert {everything(client) for client in idle} <= QUOTES


def test_a_hundred_clients_at_once(qotd: Qotd, connect: Client, ask: Client) -> None:
    qotd.start()
    tcp = [connect() for _ in range(100)]
    udp = [ask() for _ in range(100)]
    assert {everything(client) for client in tcp} <= QUOTES
    assert {client.recv(2048) for client in udp} <= QUOTES


def test_clients_that_come_while_it_is_down_are_answered_by_the_next_one(
    qotd: Qotd, connect: Client, ask: Client
) -> None:
    first = qotd.start()
    assert everything(connect()) in QUOTES
    first.kill()
    tcp, udp = [connect() for _ in range(20)], [ask() for _ in range(20)]
    qotd.start()
    assert {everything(client) for client in tcp} <= QUOTES
    assert {client.recv(2048) for client in udp} <= QUOTES


def test_a_kill_amid_requests_costs_at_most_the_one_in_flight(qotd: Qotd, connect: Client) -> None:
    lost = 0
    for _ in range(5):
        program = qotd.start()
        assert everything(connect()) in QUOTES
        program.signal(signal.SIGSTOP)
        clients = [connect() for _ in range(20)]
        program.signal(signal.SIGCONT)
        clients[0].recv(1)
        program.kill()
        qotd.start()
        for client in clients[1:]:
            try:
                lost += everything(client) not in QUOTES
            except ConnectionResetError:
                lost += 1
        assert qotd.program
        qotd.program.kill()
    assert lost <= 5


def test_another_service_that_answers_everything_is_not_answered(
    qotd: Qotd, ask: Client, sockets: list[socket.socket]
) -> None:
    address, port = qotd.udp.getsockname()
    twin = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sockets.append(twin)
    twin.bind(("127.0.0.2", port))
    twin.sendto(b"a quote", (address, port))
    client = ask()
    qotd.start()
    assert client.recv(2048) in QUOTES  # asked later, so the first one has been dealt with
    with pytest.raises(BlockingIOError):
        twin.recv(2048, socket.MSG_DONTWAIT)


def test_an_empty_index_ends_it_with_a_message(qotd: Qotd, tmp_path: Path) -> None:
    os.close(qotd.files.pop())
    qotd.files.append(os.open(tmp_path / "index", os.O_RDWR | os.O_CREAT))
    with (tmp_path / "stderr").open("w+") as stderr:
        fds = [qotd.udp.fileno(), qotd.tcp.fileno(), *qotd.files]
        assert Program(qotd.path, fds, stderr=stderr.fileno()).wait() == 1
        stderr.seek(0)
        assert stderr.read() == "qotd: the index on descriptor 6 is empty\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start it as another user")
def test_it_serves_what_only_root_can_open(qotd: Qotd, connect: Client) -> None:
    program = qotd.start()
    assert everything(connect()) in QUOTES
    assert os.stat(f"/proc/{program.pid}").st_uid == NOBODY
    assert os.fstat(qotd.files[0]).st_mode & 0o077 == 0
