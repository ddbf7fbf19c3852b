"""Hostile clients: whatever comes over the socket, the accessory answers the others and loses nothing."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.accessory import AccessoryDaemon, accessory_daemon
from tests.daemon import wait_until
from tests.unit.process.requirements import needs_root
from tests.unit.workers.accessory.inode import inodes
from workers.accessory.client import Accessory
from workers.accessory.protocol import MAGIC, encode_datagram, encode_packet

pytestmark = needs_root
PARTS, CASES = 10, 1_000  # 10,000 in all
SPACE = socket.CMSG_SPACE(16 * 4)

names = st.one_of(
    st.sampled_from([b"a", b"b", b"..", b"/", b"\x7f", b" ", b"", b"\n", b"\x80", b"n" * 5000]), st.binary(max_size=20)
)
ODD_MAPS = [b"", b"0 0 1", b"0 0 1\x000 0 1", b"\0", b"0 0 1\n0 1 1", b"junk", b"0 0 1\x00junk", b"0 0 1\n" * 500]
maps = st.sampled_from(ODD_MAPS) | st.binary(max_size=30)
packet = st.one_of(
    st.builds(encode_packet, st.just(1), names),
    st.builds(encode_packet, st.sampled_from([2, 5, 0, 2, 5, 6, 77, 0xFFFF])),
    st.builds(encode_packet, st.sampled_from([0, 2, 3, 5, 9]), st.binary(max_size=9)),
    # seldom what makes a process: there are to be ten thousand of them
    st.one_of(st.builds(encode_packet, st.just(4), maps), st.just(encode_packet(3)), st.binary(max_size=9), names),
    st.builds(lambda size, command: struct.pack("=HH", size, command), st.integers(0, 0xFFFF), st.integers(0, 9)),
)
request = st.one_of(
    st.builds(encode_datagram, st.lists(packet, max_size=6)),
    st.builds(lambda name, more: encode_datagram([encode_packet(1, name), *more]), names, st.lists(packet, max_size=4)),
)
datagram = st.one_of(
    request,
    request,
    st.binary(max_size=40),
    st.builds(lambda whole, at: whole[: at % (len(whole) + 1)], request, st.integers(0, 200)),
    st.binary(max_size=40).map(lambda body: struct.pack("=II", MAGIC, 4711) + body),
    st.integers(60_000, 70_000).map(lambda size: b"x" * size),
)
# what a client does: its datagrams, how many descriptors come along with each, whether it reads, and how it ends
case = st.tuples(
    st.lists(st.tuples(datagram, st.sampled_from([0, 0, 0, 0, 1, 3, 250])), max_size=4),
    st.booleans(),
    st.sampled_from(["close", "half", "abort"]),
)


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
    seen = 0

    with Accessory(daemon.address) as other, other.request("other", ipc=True, lease=True) as held:
        inode = os.fstat(held.ipc).st_ino

        @seed(part)
        @settings(
            max_examples=CASES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case)
        def attack(what: tuple[list[tuple[bytes, int]], bool, str]) -> None:
            nonlocal seen
            seen += 1
            be_hostile(daemon.address, *what)
            if seen % 20 == 0:
                assert inodes(other.request("other", ipc=True))[0] == inode

        attack()
    assert seen >= CASES
    assert daemon.worker == worker
    wait_until(lambda: open_files(worker) == before, "all descriptors to be closed", patience=60)
    assert "Traceback" not in daemon.log()
    assert "unexpected" not in daemon.log()


def be_hostile(address: str, datagrams: list[tuple[bytes, int]], reads: bool, end: str) -> None:
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
