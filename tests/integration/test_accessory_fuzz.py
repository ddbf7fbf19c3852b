"""Hostile clients: whatever comes over the socket, the accessory answers the others and loses nothing."""

from __future__ import annotations

import os
import random
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.accessory import AccessoryDaemon, accessory_daemon
from tests.daemon import wait_until
from tests.unit.process.requirements import needs_root
from tests.unit.workers.accessory.inode import inodes
from workers.accessory.client import Accessory
from workers.accessory.protocol import MAGIC, encode_datagram, encode_packet

pytestmark = needs_root
PARTS, CASES = 10, 1_000  # 10,000 in all
SPACE = socket.CMSG_SPACE(16 * 4)

NAMES = [b"a", b"b", b"..", b"/", b"\x7f", b" ", b"", b"\n", b"\x80", b"n" * 5000]
ODD_MAPS = [b"", b"0 0 1", b"0 0 1\x000 0 1", b"\0", b"0 0 1\n0 1 1", b"junk", b"0 0 1\x00junk", b"0 0 1\n" * 500]
Datagrams = list[tuple[bytes, int]]  # with the number of descriptors that come along


class Cases:
    """Acts of clients.  Plain random numbers, as nothing would be gained from shrinking what a daemon has seen."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def case(self) -> tuple[Datagrams, bool, str]:
        """The datagrams of a client, whether it reads, and how it ends."""
        choice = self._random.choice
        datagrams = [(self._datagram(), choice([0, 0, 0, 0, 1, 3, 250])) for _ in self._times(4)]
        return datagrams, choice([False, True]), choice(["close", "half", "abort"])

    def _times(self, most: int) -> range:
        return range(self._random.randint(0, most))

    def _bytes(self, most: int) -> bytes:
        return self._random.randbytes(self._random.randint(0, most))

    def _name(self) -> bytes:
        return self._random.choice([self._random.choice(NAMES), self._bytes(20)])

    def _packet(self) -> bytes:
        choice = self._random.choice
        match self._random.randrange(5):
            case 0:
                return encode_packet(1, self._name())
            case 1:
                return encode_packet(choice([2, 5, 0, 2, 5, 6, 77, 0xFFFF]))
            case 2:
                return encode_packet(choice([0, 2, 3, 5, 9]), self._bytes(9))
            case 3:
                return self._odd_packet()
            case _:
                return struct.pack("=HH", self._random.randint(0, 0xFFFF), self._random.randint(0, 9))

    def _odd_packet(self) -> bytes:
        """Seldom what makes a process: there are to be ten thousand of them."""
        match self._random.randrange(4):
            case 0:
                return encode_packet(4, self._random.choice([self._random.choice(ODD_MAPS), self._bytes(30)]))
            case 1:
                return encode_packet(3)
            case 2:
                return self._bytes(9)
            case _:
                return self._name()

    def _request(self) -> bytes:
        if self._random.randrange(2):
            return encode_datagram([self._packet() for _ in self._times(6)])
        return encode_datagram([encode_packet(1, self._name()), *(self._packet() for _ in self._times(4))])

    def _datagram(self) -> bytes:
        match self._random.randrange(6):
            case 0 | 1:
                return self._request()
            case 2:
                return self._bytes(40)
            case 3:
                whole = self._request()
                return whole[: self._random.randint(0, len(whole))]
            case 4:
                return struct.pack("=II", MAGIC, 4711) + self._bytes(40)
            case _:
                return b"x" * self._random.randint(60_000, 70_000)


@pytest.fixture(scope="module")
def daemon(request: pytest.FixtureRequest) -> Iterator[AccessoryDaemon]:
    with (
        tempfile.TemporaryDirectory(prefix="spawnd-test-") as name,
        accessory_daemon(Path(name), "300ms", rights=request.param) as daemon,
    ):
        yield daemon


# what comes along is received from those who may map any ids, and not from others
@pytest.mark.parametrize(
    ("daemon", "part"),
    [("any" if part < PARTS // 2 else "own", part) for part in range(PARTS)],
    indirect=["daemon"],
)
def test_hostile_clients(daemon: AccessoryDaemon, part: int) -> None:
    worker = daemon.worker
    before = open_files(worker)
    cases = Cases(part)
    with Accessory(daemon.address) as other, other.request("other", ipc=True, lease=True) as held:
        inode = os.fstat(held.ipc).st_ino
        for number in range(CASES):
            be_hostile(daemon.address, *cases.case())
            if number % 20 == 0:
                assert inodes(other.request("other", ipc=True))[0] == inode
    assert daemon.worker == worker
    wait_until(lambda: open_files(worker) == before, "all descriptors to be closed", patience=60)
    assert "Traceback" not in daemon.log()
    assert "unexpected" not in daemon.log()


def be_hostile(address: str, datagrams: Datagrams, reads: bool, end: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock, open(os.devnull) as null:
        sock.connect("\0" + address[1:])
        for data, descriptors in datagrams:
            with suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(sock, [data], [null.fileno()] * descriptors)
        if end == "half":
            sock.shutdown(socket.SHUT_WR)
        if reads and end == "half":
            read_all(sock)


def read_all(sock: socket.socket) -> None:
    """All answers, up to the end."""
    sock.settimeout(30)
    with suppress(ConnectionResetError):
        while True:
            data, ancillary, _, _ = sock.recvmsg(1024, SPACE)
            for _, _, raw in ancillary:
                for (fd,) in struct.iter_unpack("=i", raw):
                    os.close(fd)
            if not data:
                return


def open_files(pid: int) -> list[str]:
    """Return the kinds of a process's descriptors: numbers of namespaces and sockets may differ."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0])
    return sorted(found)
