"""The options of a socket that a definition can set, in the order in which they must be set."""

from __future__ import annotations

import socket
import struct

from supervisor.definitions.service import Descriptor
from supervisor.process.step import step

# <linux/in.h>, <linux/in6.h> and <asm-generic/socket.h>; the socket module lacks them
IP_FREEBIND = 15
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
IPV6_FREEBIND = 78
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33


def set_options(sock: socket.socket, spec: Descriptor, label: str) -> None:
    """Set what `spec` says on a socket that is not bound yet: sizes of buffers count from the first packet.

    Raises StepError, naming the option and `label`.
    """
    if spec.passcred:
        _set(sock, "passcred", label, socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    if spec.mark is not None:
        _set(sock, "mark", label, socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", spec.mark))  # a __u32
    if spec.sndbuf is not None:
        _set_buffer(sock, "sndbuf", label, SO_SNDBUFFORCE, socket.SO_SNDBUF, spec.sndbuf)
    if spec.rcvbuf is not None:
        _set_buffer(sock, "rcvbuf", label, SO_RCVBUFFORCE, socket.SO_RCVBUF, spec.rcvbuf)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        _set_internet_options(sock, spec, label)


def _set_internet_options(sock: socket.socket, spec: Descriptor, label: str) -> None:
    v6 = sock.family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    if spec.kind == "tcp":
        # A new spawnd may bind while connections of the old one are in TIME_WAIT.  Not for UDP: there it
        # would let two sockets share the port.
        _set(sock, "reuseaddr", label, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if spec.reuseport:
        _set(sock, "reuseport", label, socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if spec.freebind:
        _set(sock, "freebind", label, level, IPV6_FREEBIND if v6 else IP_FREEBIND, 1)
    if spec.transparent:
        _set(sock, "transparent", label, level, IPV6_TRANSPARENT if v6 else IP_TRANSPARENT, 1)
    if v6 and spec.v6only is not None:
        _set(sock, "v6only", label, level, socket.IPV6_V6ONLY, int(spec.v6only))
    elif v6 and spec.host == "::":
        _set(sock, "v6only", label, level, socket.IPV6_V6ONLY, 0)  # whatever net.ipv6.bindv6only says
    if spec.nodelay and spec.kind == "tcp":
        # accepted connections inherit it from the listening socket
        _set(sock, "nodelay", label, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _set(sock: socket.socket, name: str, label: str, level: int, option: int, value: int | bytes) -> None:
    with step(f"set {name} of {label}"):
        sock.setsockopt(level, option, value)


def _set_buffer(sock: socket.socket, name: str, label: str, force: int, plain: int, value: int) -> None:
    """Above net.core.[rw]mem_max with CAP_NET_ADMIN, up to there without."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, value)
    except PermissionError:
        _set(sock, name, label, socket.SOL_SOCKET, plain, value)
