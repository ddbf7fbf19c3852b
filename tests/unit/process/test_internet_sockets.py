from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

import pytest

from supervisor.definitions.service import Descriptor
from supervisor.errors import StepError
from supervisor.process import sockets
from supervisor.process.held_descriptors import open_descriptor
from supervisor.process.sockets import open_internet
from tests.unit.process.forked import in_child, open_numbers, step_error
from tests.unit.process.requirements import needs_ipv6, needs_root

V4, V6 = "127.0.0.1", "::1"
both_families = pytest.mark.parametrize("host", [V4, pytest.param(V6, marks=needs_ipv6)])


def opened(kind: Any, host: str = V4, port: int = 0, **options: Any) -> socket.socket:
    return socket.socket(fileno=open_internet(Descriptor(kind, host=host, port=port, **options)))


def option(sock: socket.socket, level: int, number: int) -> int:
    return sock.getsockopt(level, number)


@both_families
def test_tcp_listens(host: str) -> None:
    with opened("tcp", host) as sock:
        assert sock.getsockname()[0] == host
        assert option(sock, socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert option(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert os.get_blocking(sock.fileno())
        assert not sock.get_inheritable()
        with socket.create_connection(sock.getsockname()[:2], 5), sock.accept()[0]:
            pass


@both_families
def test_udp_is_bound(host: str) -> None:
    with opened("udp", host) as sock, socket.socket(sock.family, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", sock.getsockname()[:2])
        assert sock.recv(10) == b"x"
        assert option(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0


@needs_ipv6
def test_the_wildcard_of_ipv6_serves_ipv4_unless_told_otherwise() -> None:
    with opened("tcp", "::") as sock:
        with socket.create_connection((V4, sock.getsockname()[1]), 5):
            pass
        assert option(sock, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
    with opened("tcp", "::", v6only=True) as sock, pytest.raises(ConnectionRefusedError):
        socket.create_connection((V4, sock.getsockname()[1]), 5)


@pytest.mark.parametrize(
    ("name", "level", "number"),
    [
        ("reuseport", socket.SOL_SOCKET, socket.SO_REUSEPORT),
        ("nodelay", socket.IPPROTO_TCP, socket.TCP_NODELAY),
        ("freebind", socket.IPPROTO_IP, sockets.IP_FREEBIND),
        pytest.param("transparent", socket.IPPROTO_IP, sockets.IP_TRANSPARENT, marks=needs_root),
    ],
)
def test_switches(name: str, level: int, number: int) -> None:
    with opened("tcp") as sock:
        assert option(sock, level, number) == 0
    with opened("tcp", V4, 0, **{name: True}) as sock:
        assert option(sock, level, number) != 0


@needs_ipv6
def test_freebind_binds_what_no_interface_has() -> None:
    for host in ("192.0.2.1", "2001:db8::1"):
        with opened("udp", host, freebind=True) as sock:
            assert sock.getsockname()[0] == host
        shown = f"[{host}]" if ":" in host else host
        spec = Descriptor("udp", host=host, port=0)
        assert step_error(lambda spec=spec: open_internet(spec)) == (  # type: ignore[misc]
            f"bind udp {shown}:0",
            "",
            errno.EADDRNOTAVAIL,
        )


@needs_root
@needs_ipv6
def test_transparent_and_mark_of_ipv6() -> None:
    with opened("udp", V6, transparent=True, mark=7) as sock:
        assert option(sock, socket.IPPROTO_IPV6, sockets.IPV6_TRANSPARENT) == 1
        assert option(sock, socket.SOL_SOCKET, socket.SO_MARK) == 7


def test_an_interface_and_silence() -> None:
    with opened("tcp", interface="lo", defer_accept=10.0) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b"lo\0"
        assert option(sock, socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 15  # 1 + 2 + 4 + 8
    with opened("udp", V6, interface="lo") as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b"lo\0"
    spec = Descriptor("tcp", host=V4, port=0, interface="nowhere0")
    with pytest.raises(StepError, match=r"cannot set interface of tcp 127\.0\.0\.1:0: no interface 'nowhere0'"):
        open_internet(spec)


@needs_root
@pytest.mark.parametrize("mark", [1 << 31, (1 << 32) - 1])
def test_a_mark_has_32_bits(mark: int) -> None:
    with opened("udp", mark=mark) as sock:
        assert struct.unpack("=I", sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, 4)) == (mark,)


def test_mark_takes_a_capability() -> None:
    def as_nobody() -> tuple[str, str, int]:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        return step_error(lambda: opened("udp", port=0, mark=7))

    assert in_child(as_nobody) == ("set mark of udp 127.0.0.1:0", "", errno.EPERM)


@needs_root
def test_buffers_beyond_the_limit_for_users() -> None:
    with opened("udp", sndbuf=1 << 25, rcvbuf=1 << 25) as sock:  # the kernel doubles what it is told
        assert option(sock, socket.SOL_SOCKET, socket.SO_SNDBUF) == 1 << 26
        assert option(sock, socket.SOL_SOCKET, socket.SO_RCVBUF) == 1 << 26


def test_buffers_of_an_unprivileged_supervisor() -> None:
    def as_nobody() -> int:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        with opened("udp", sndbuf=8192) as sock:
            return option(sock, socket.SOL_SOCKET, socket.SO_SNDBUF)

    assert in_child(as_nobody) == 16384


class _Refused(socket.socket):
    """A socket of a user who may not bind low ports."""

    def bind(self, address: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_low_port_says_which_right_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", _Refused)
    lacks = "a port below 1024 needs root or CAP_NET_BIND_SERVICE"
    with pytest.raises(StepError) as caught:
        open_internet(Descriptor("tcp", host=V4, port=80))
    assert str(caught.value) == f"cannot bind tcp 127.0.0.1:80: Permission denied: {lacks} (EACCES)"
    with pytest.raises(StepError, match=r"Permission denied \(EACCES\)$"):
        open_internet(Descriptor("tcp", host=V4, port=8080))


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_busy_port(kind: Any) -> None:
    with opened(kind) as sock:
        port = sock.getsockname()[1]
        before = open_numbers()
        spec = Descriptor(kind, host=V4, port=port)
        assert step_error(lambda: open_descriptor(spec)) == (f"bind {kind} 127.0.0.1:{port}", "", errno.EADDRINUSE)
        assert open_numbers() == before


def test_a_backlog() -> None:
    with opened("tcp", backlog=0) as sock:
        address = sock.getsockname()
        with socket.create_connection(address, 5), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            second.settimeout(0.2)
            with pytest.raises(OSError, match=r"timed out|in progress|already"):
                second.connect(address)


def test_an_unknown_interface() -> None:
    spec = Descriptor("udp", host="fe80::1%nosuch0", port=69)
    assert step_error(lambda: open_internet(spec)) == ("bind udp [fe80::1%nosuch0]:69", "", errno.ENODEV)
