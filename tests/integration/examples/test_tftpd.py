"""The TFTP example, with curl and with a client that misbehaves."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.examples.program import NOBODY, Program
from tests.integration.examples.tftp_client import ACK, DATA, ERROR, OACK, RRQ, WRQ, TftpClient, options_of

NOT_FOUND, ACCESS, ILLEGAL, UNKNOWN_TID = 1, 2, 4, 5


class Tftpd:
    """A running server, its folder and its log."""

    def __init__(self, examples: Path, host: str = "127.0.0.1") -> None:
        self.root = examples / "tftpboot"
        self.log = examples / "log"
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.address: tuple[str, int] = self.sock.getsockname()
        with self.log.open("w") as stderr:
            self.program = Program(examples / "tftpd", [self.sock.fileno()], self.root, stderr.fileno())

    def put(self, name: str, content: bytes, mode: int = 0o644) -> bytes:
        path = self.root / name
        path.write_bytes(content)
        path.chmod(mode)
        return content

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.program.pid}/fd"))

    def close(self) -> None:
        self.program.kill()
        self.sock.close()


Clients = Callable[[], TftpClient]


@pytest.fixture
def tftpd(examples: Path) -> Iterator[Tftpd]:
    server = Tftpd(examples)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def clients(tftpd: Tftpd) -> Iterator[Clients]:
    opened: list[TftpClient] = []

    def new() -> TftpClient:
        opened.append(TftpClient(tftpd.address))
        return opened[-1]

    yield new
    for client in opened:
        client.close()


@pytest.fixture
def client(clients: Clients) -> TftpClient:
    return clients()


def wait_until_packets_are_taken(clients: Clients) -> None:
    """Wait until a few packets sent to one transfer before have been dealt with.

    The server takes one packet of each socket in a round, and a request needs a round at least.
    """
    for _ in range(5):
        assert clients().fetch(b"hello.txt")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 100_000])
def test_a_file_of_any_size_arrives_whole(tftpd: Tftpd, client: TftpClient, size: int) -> None:
    content = tftpd.put("file", os.urandom(size))
    assert client.fetch(b"file") == content


def test_curl_fetches_a_file(tftpd: Tftpd, tmp_path: Path) -> None:
    content = tftpd.put("file", os.urandom(300_000))
    host, port = tftpd.address
    for options in ([], ["--tftp-no-options"], ["--tftp-blksize", "1400"]):
        subprocess.run(
            ["curl", "--silent", "--show-error", *options, "-o", tmp_path / "got", f"tftp://{host}:{port}/file"],
            check=True,
            timeout=60,
        )
        assert (tmp_path / "got").read_bytes() == content


def test_every_transfer_has_a_port_of_its_own(tftpd: Tftpd, clients: Clients) -> None:
    content = tftpd.put("file", os.urandom(2000))
    one, other = clients(), clients()
    one.request(b"file")
    other.request(b"file")
    parts: dict[TftpClient, bytes] = {one: b"", other: b""}
    for block in range(1, 5):
        for client in parts:
            opcode, number, data = client.receive()
            assert (opcode, number) == (DATA, block)
            parts[client] += data
            client.ack(block)
    assert list(parts.values()) == [content, content]
    assert len({one.tid, other.tid, tftpd.address}) == 3


def test_no_descriptor_stays_open_after_transfers(tftpd: Tftpd, clients: Clients) -> None:
    clients().fetch(b"hello.txt")
    before = tftpd.open_files()
    for _ in range(20):
        clients().fetch(b"hello.txt")
        refused = clients()
        refused.request(b"no such file")
        refused.error()
    assert tftpd.open_files() <= before + 2


def test_an_option_is_granted_by_its_name_in_any_case(tftpd: Tftpd, client: TftpClient) -> None:
    content = tftpd.put("file", os.urandom(5000))
    client.request(b"file", BlkSize=1000, TSIZE=0, timeout=3, unheard="of")
    assert options_of(client.receive()) == {b"blksize": b"1000", b"tsize": b"5000", b"timeout": b"3"}
    client.ack(0)
    assert client.download(1000) == content


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ({"blksize": 7}, None),
        ({"blksize": 8}, {b"blksize": b"8"}),
        ({"blksize": 65464}, {b"blksize": b"65464"}),
        ({"blksize": 70000}, {b"blksize": b"65464"}),
        ({"blksize": "-9"}, None),
        ({"blksize": "1e3"}, None),
        ({"blksize": "9" * 40}, None),
        ({"timeout": 0}, None),
        ({"timeout": 255}, {b"timeout": b"255"}),
        ({"timeout": 256}, None),
        ({"tsize": 0}, {b"tsize": b"100"}),
    ],
)
def test_options_within_their_bounds(
    tftpd: Tftpd, client: TftpClient, asked: dict[str, object], granted: dict[bytes, bytes] | None
) -> None:
    tftpd.put("file", bytes(100))
    client.request(b"file", b"octet", RRQ, **asked)
    answer = client.receive()
    if granted is None:
        assert answer == (DATA, 1, bytes(100))
    else:
        assert options_of(answer) == granted


def test_the_largest_block_fits_into_a_datagram(tftpd: Tftpd, client: TftpClient) -> None:
    content = tftpd.put("file", os.urandom(150_000))
    client.request(b"file", blksize=65464)
    assert client.receive()[0] == OACK
    client.ack(0)
    assert client.download(65464) == content


def test_block_numbers_wrap_around(tftpd: Tftpd, client: TftpClient) -> None:
    content = tftpd.put("file", os.urandom(65_536 * 8 + 100))
    client.request(b"file", blksize=8)
    assert client.receive()[0] == OACK
    client.ack(0)
    assert client.download(8) == content


def test_netascii_changes_line_ends_across_blocks(tftpd: Tftpd, client: TftpClient) -> None:
    content = tftpd.put("text", b"a\n" * 700 + b"b\r" * 300 + b"c\r\n" * 300)
    expected = content.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
    assert client.fetch(b"text", b"NetASCII") == expected


def test_netascii_has_no_size_to_tell_beforehand(tftpd: Tftpd, client: TftpClient) -> None:
    tftpd.put("text", b"a\n")
    client.request(b"text", b"netascii", tsize=0)
    assert client.receive() == (DATA, 1, b"a\r\n")


def test_a_block_without_an_ack_comes_again(tftpd: Tftpd, client: TftpClient) -> None:
    content = tftpd.put("file", os.urandom(700))
    client.request(b"file")
    assert client.receive() == (DATA, 1, content[:512])
    assert client.receive() == (DATA, 1, content[:512])
    client.ack(1)
    assert client.receive() == (DATA, 2, content[512:])
    assert client.receive() == (DATA, 2, content[512:])


def test_an_oack_without_an_ack_comes_again(tftpd: Tftpd, client: TftpClient) -> None:
    content = tftpd.put("file", os.urandom(700))
    client.request(b"file", timeout=1)
    assert options_of(client.receive()) == {b"timeout": b"1"}
    assert options_of(client.receive()) == {b"timeout": b"1"}
    client.ack(0)
    assert client.download() == content


def test_a_duplicate_ack_doubles_no_packet(tftpd: Tftpd, client: TftpClient, clients: Clients) -> None:
    content = tftpd.put("file", os.urandom(2000))
    client.request(b"file", timeout=5)
    client.receive()
    client.ack(0)
    received = b""
    for block in range(1, 5):
        opcode, number, data = client.receive()
        assert (opcode, number) == (DATA, block)
        received += data
        client.ack(block)
        client.ack(block)
        client.ack(block - 1)
    assert received == content
    wait_until_packets_are_taken(clients)
    assert client.has_nothing()


def test_a_repeated_request_starts_no_second_transfer(tftpd: Tftpd, client: TftpClient) -> None:
    content = tftpd.put("file", os.urandom(2000))
    client.request(b"file")
    client.request(b"file")
    assert client.download() == content


def test_a_stranger_gets_an_error_and_the_transfer_goes_on(tftpd: Tftpd, client: TftpClient, clients: Clients) -> None:
    content = tftpd.put("file", os.urandom(2000))
    client.request(b"file")
    first = client.receive()
    stranger = clients()
    stranger.tid = client.tid
    stranger.ack(1)
    assert stranger.error()[0] == UNKNOWN_TID
    stranger.send(ERROR, 0, b"stop\0")
    client.ack(1)
    assert first[2] + client.download(first=2) == content


def test_an_error_from_the_client_ends_the_transfer(tftpd: Tftpd, client: TftpClient, clients: Clients) -> None:
    tftpd.put("file", bytes(2000))
    client.request(b"file")
    client.receive()
    client.send(ERROR, 3, b"disk full\0")
    client.ack(1)
    wait_until_packets_are_taken(clients)
    assert client.has_nothing()
    assert "b'file': 512 bytes sent, ended by the client\n" in tftpd.log.read_text()


def test_a_client_that_is_silent_for_good_is_given_up(tftpd: Tftpd, client: TftpClient) -> None:
    tftpd.put("file", bytes(600))
    client.request(b"file", timeout=1)
    packets = [client.receive() for _ in range(6)]
    assert [opcode for opcode, _, _ in packets] == [OACK] * 6
    assert client.error() == (0, b"no answer\0")


@pytest.mark.parametrize("name", [b"../secret", b"/../secret", b"sub/../../secret", b"..", b"link", b"dangling/../x"])
def test_nothing_outside_of_the_folder_is_served(tftpd: Tftpd, client: TftpClient, name: bytes) -> None:
    secret = tftpd.root.parent / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o644)
    (tftpd.root / "sub").mkdir()
    (tftpd.root / "link").symlink_to("../secret")
    client.request(name)
    assert client.error()[0] in (NOT_FOUND, ACCESS)


def test_names_below_the_folder(tftpd: Tftpd, clients: Clients) -> None:
    (tftpd.root / "sub").mkdir(mode=0o755)
    content = tftpd.put("sub/file", b"content")
    (tftpd.root / "link").symlink_to("sub")
    for name in (b"sub/file", b"/sub/file", b"sub/../sub/file", b"./sub//file", b"link/file"):
        assert clients().fetch(name) == content


def test_requests_that_are_refused(tftpd: Tftpd, clients: Clients) -> None:
    tftpd.put("private", b"x", mode=0o640)
    (tftpd.root / "sub").mkdir()
    os.mkfifo(tftpd.root / "fifo", 0o644)
    for name, code in (
        (b"missing", NOT_FOUND),
        (b"hello.txt/x", NOT_FOUND),
        (b"private", ACCESS),
        (b"sub", ACCESS),
        (b"fifo", ACCESS),
        (b"", ACCESS),
        (b"n" * 300, 0),
    ):
        client = clients()
        client.request(name)
        assert client.error()[0] == code, name
        assert client.tid != tftpd.address


def test_a_write_request_is_an_access_violation(tftpd: Tftpd, client: TftpClient) -> None:
    client.request(b"new", opcode=WRQ)
    assert client.error()[0] == ACCESS
    assert not (tftpd.root / "new").exists()


def test_malformed_requests(clients: Clients) -> None:
    for packet in (b"", b"\0", b"\0\1", b"\0\1name", b"\0\1name\0mail\0", b"\0\x09name\0octet\0", b"\0\4\0\1"):
        client = clients()
        client.sock.sendto(packet, client.server)
        assert client.error()[0] == ILLEGAL


def test_an_error_is_never_answered(clients: Clients) -> None:
    client = clients()
    client.sock.sendto(b"\0\5\0\0\0", client.server)
    wait_until_packets_are_taken(clients)
    assert client.has_nothing()


def test_answers_come_from_the_address_that_was_asked(examples: Path) -> None:
    server = Tftpd(examples, host="0.0.0.0")
    client = TftpClient(("127.0.0.3", server.address[1]))
    try:
        assert client.fetch(b"hello.txt")
        assert client.tid
        assert client.tid[0] == "127.0.0.3"
    finally:
        client.close()
        server.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start it as another user")
def test_it_runs_as_nobody_in_a_folder_it_could_not_get_to(tftpd: Tftpd, client: TftpClient) -> None:
    assert client.fetch(b"hello.txt")  # it has started
    client.tid = None
    tftpd.root.parent.parent.chmod(0o700)
    (tftpd.root / "link").symlink_to("hello.txt")
    assert client.fetch(b"hello.txt") == (tftpd.root / "hello.txt").read_bytes()
    assert os.stat(f"/proc/{tftpd.program.pid}").st_uid == NOBODY


def test_ack_numbers_that_were_never_sent_are_ignored(tftpd: Tftpd, client: TftpClient) -> None:
    content = tftpd.put("file", os.urandom(1200))
    client.request(b"file")
    first = client.receive()
    client.send(ACK, 2)
    client.send(DATA, 1)
    client.ack(1)
    assert first[2] + client.download(first=2) == content
