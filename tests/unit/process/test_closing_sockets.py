"""Sockets of services, closed with what others have left in them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from supervisor.definitions.service import Descriptor
from supervisor.notify import safe_close
from supervisor.notify.safe_close import Closer
from supervisor.notify.untrusted import close_elsewhere
from supervisor.process import sockets
from supervisor.process.held_descriptors import close_descriptor, open_descriptor
from tests.unit.closing import PatientCloser, Reaper, Stopped
from tests.unit.process.forked import open_numbers
from tests.unit.varlink.lingering import LINGER, lingering, pass_on

Kind = Literal["stream", "dgram", "seqpacket"]
TYPES: dict[Kind, socket.SocketKind] = {
    "stream": socket.SOCK_STREAM,
    "dgram": socket.SOCK_DGRAM,
    "seqpacket": socket.SOCK_SEQPACKET,
}


@pytest.fixture
def closer() -> Iterator[PatientCloser]:
    before = open_numbers()
    started = time.monotonic()
    closer = PatientCloser()
    yield closer
    closer.file_systems.close()  # spawnd keeps the table of mounts open
    assert open_numbers() == before
    assert time.monotonic() - started < LINGER / 2, "nothing was waited for"


def address(tmp_path: Path, kind: Kind, abstract: bool) -> tuple[str, str]:
    """As a definition has it, and as the kernel does."""
    if abstract:
        name = f"spawnd-test-{os.getpid()}-{kind}"
        return f"@{name}", f"\0{name}"
    return str(tmp_path / "socket"), str(tmp_path / "socket")


@pytest.mark.parametrize("abstract", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_what_lingers_in_a_socket_is_waited_for_by_nobody(
    closer: PatientCloser, tmp_path: Path, kind: Kind, abstract: bool
) -> None:
    """And the address is free at once."""
    path, name = address(tmp_path, kind, abstract)
    opened = open_descriptor(Descriptor(kind, path=path))
    with lingering() as sock, socket.socket(socket.AF_UNIX, TYPES[kind]) as client:
        client.connect(name)
        pass_on(client, sock)
        close_descriptor(opened, closer)
        assert closer.reaper.started == 1 + (abstract and kind != "dgram"), "an abstract name is released at once"
        with pytest.raises(OSError):  # noqa: PT011 - of each kind another one
            client.send(b"x")
    close_descriptor(open_descriptor(Descriptor(kind, path=path)), closer)


@pytest.mark.parametrize("kind", ["stream", "seqpacket"])
def test_ordinary_clients_are_not_the_child_s(
    closer: PatientCloser, tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    def close(fds: Sequence[int]) -> int:
        given.extend(fds)
        return close_elsewhere(fds)

    monkeypatch.setattr(safe_close, "close_elsewhere", close)
    opened = open_descriptor(Descriptor(kind, path=str(tmp_path / "socket")))
    clients = [socket.socket(socket.AF_UNIX, TYPES[kind]) for _ in range(100)]
    for number, client in enumerate(clients):
        client.connect(str(tmp_path / "socket"))
        client.send(b"x" * number)
    close_descriptor(opened, closer)
    assert given == [opened.fd]
    for client in clients:
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.send(b"x")
        client.close()


def test_a_client_s_byte_out_of_band_is_looked_at(closer: PatientCloser, tmp_path: Path) -> None:
    opened = open_descriptor(Descriptor("stream", path=str(tmp_path / "socket")))
    with lingering() as sock, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "socket"))
        pass_on(client, sock, flags=socket.MSG_OOB)
        close_descriptor(opened, closer)
        assert closer.reaper.started == 1


def test_a_connected_socket_is_not_closed_here_whatever_a_look_says(closer: PatientCloser, tmp_path: Path) -> None:
    """Others that have it may change its options between a look and the close."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "server"))
        server.listen()
        opened = open_descriptor(Descriptor("stream", path=str(tmp_path / "server"), connect=True))
        close_descriptor(opened, closer)
    assert closer.reaper.started == 1


def test_of_many_clients_the_rest_is_the_child_s(
    closer: PatientCloser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MOST_CLIENTS", 3)
    opened = open_descriptor(Descriptor("stream", path=str(tmp_path / "socket")))
    clients = [socket.socket(socket.AF_UNIX) for _ in range(5)]
    for client in clients:
        client.connect(str(tmp_path / "socket"))
    close_descriptor(opened, closer)
    assert closer.reaper.started == 1
    for client in clients:
        with suppress(ConnectionResetError):  # so does one that nobody has accepted
            assert client.recv(1) == b""
        client.close()


@pytest.mark.parametrize("kind", TYPES)
def test_a_connected_socket(closer: PatientCloser, tmp_path: Path, kind: Kind) -> None:
    """Whatever is at its other end has sent something back."""
    server = socket.socket(socket.AF_UNIX, TYPES[kind])
    server.bind(str(tmp_path / "server"))
    if kind != "dgram":
        server.listen()
    opened = open_descriptor(Descriptor(kind, path=str(tmp_path / "server"), connect=True))
    with server, lingering() as sock:
        if kind == "dgram":
            with socket.socket(fileno=os.dup(opened.fd)) as ours:
                ours.bind(str(tmp_path / "client"))
            server.connect(str(tmp_path / "client"))
            pass_on(server, sock)
        else:
            peer, _ = server.accept()
            with peer:
                pass_on(peer, sock)
        close_descriptor(opened, closer)
        assert closer.reaper.started == 1


def test_a_socket_of_the_internet_that_lingers(closer: PatientCloser) -> None:
    """A service that has it, too, can have told it to, and what it accepts does as well."""
    opened = open_descriptor(Descriptor("tcp", host="127.0.0.1", port=0))
    with socket.socket(fileno=os.dup(opened.fd)) as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\x3c\0\0\0")
        client = socket.create_connection(shared.getsockname())
        close_descriptor(opened, closer)
    client.close()
    assert closer.reaper.started == 1


def test_the_queue_that_is_full_of_one_service_s_sockets_keeps_no_address(tmp_path: Path) -> None:
    """The listener is closed here, and only its clients wait."""
    reaper = Reaper()
    closer = Closer(Stopped(), reaper)
    path = str(tmp_path / "socket")
    for _ in range(2):
        opened = open_descriptor(Descriptor("stream", path=path))
        kept, sent = socket.socketpair()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            pass_on(client, sent)
        kept.close()
        close_descriptor(opened, closer)
    reaper.settle()
