"""UDP and TCP sockets, bound by root to the address of a definition."""

from __future__ import annotations

import errno
import socket

from supervisor.definitions.service import Descriptor
from supervisor.process.socket_options import set_options
from supervisor.process.step import failed, step

DEFAULT_BACKLOG = 4096  # clients that wait while a service is down; the kernel caps it at net.core.somaxconn

_TYPES = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}


def open_internet(spec: Descriptor) -> int:
    """A bound UDP or a listening TCP socket, as a descriptor that the caller owns.  Raises StepError."""
    label = _label(spec)
    family, address = _address(spec, label)
    with step(f"create {label}"):
        sock = socket.socket(family, _TYPES[spec.kind])
    try:
        set_options(sock, spec, label)
        with step(f"bind {label}"):
            sock.bind(address)
        if spec.kind == "tcp":
            with step(f"listen on {label}"):
                sock.listen(DEFAULT_BACKLOG if spec.backlog is None else spec.backlog)
        return sock.detach()
    finally:
        sock.close()  # nothing after detach()


def _label(spec: Descriptor) -> str:
    """`tcp 127.0.0.1:80`, `udp [::1]:69`."""
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    return f"{spec.kind} {host}:{spec.port}"


def _address(spec: Descriptor, label: str) -> tuple[int, tuple[str, int] | tuple[str, int, int, int]]:
    """Family and address of a numeric host.

    A scope (`fe80::1%eth0`) is looked up where the socket is made, as interfaces belong to a network namespace.
    """
    if ":" not in spec.host:
        return socket.AF_INET, (spec.host, spec.port)
    host, _, scope = spec.host.partition("%")
    return socket.AF_INET6, (host, spec.port, 0, _scope_id(scope, label) if scope else 0)


def _scope_id(scope: str, label: str) -> int:
    if scope.isdecimal():
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except OSError as error:  # which says nothing about the interface
        raise failed(f"bind {label}", "", errno.ENODEV, f"no interface {scope!r}") from error
