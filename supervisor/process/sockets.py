"""Sockets for services: bound for a service to serve, or connected for it to use, with the options of a definition.

A Unix path is bound in such a way that no client can use the socket before its owner and mode are set: bind
makes the file without permissions. A socket file of a process that is gone is replaced. A socket file in use
stays, and so does any other kind of file.

bind(2) takes a path rather than an open folder, and the path must be the real one, because getsockname
returns it. So the way is checked before (`Place`), and the new file is checked there afterwards. A user who
wins a race can have an empty socket file without permissions made elsewhere and make the step fail, but
nothing there is removed or changed. Where a user could lead the way to a file system that does not answer, a
child makes the call, and spawnd waits no longer than a tenth of a second for it (`bind_in_time`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator

from supervisor.definitions.service import Descriptor
from supervisor.errors import ServedFileError, StepError
from supervisor.linux.pipe_call import bind_in_time
from supervisor.linux.place import Place
from supervisor.notify.untrusted import may_hold_others
from supervisor.process.failure import failed, step
from supervisor.process.files import IsLocal, Rights, place_for, refusal

DEFAULT_MODE = 0o666  # as if made under umask 0; a mode in the definition excludes clients
DEFAULT_BACKLOG = 4096  # clients that can queue while a service is down; the kernel caps it at net.core.somaxconn
FIRST_UNPRIVILEGED_PORT = 1024  # unless net.ipv4.ip_unprivileged_port_start differs: ip(7)
MOST_CLIENTS = 512  # clients of a backlog that are inspected when a socket is closed: some milliseconds

Inode = tuple[int, int]  # device and number

_TYPES = {
    "stream": socket.SOCK_STREAM,
    "dgram": socket.SOCK_DGRAM,
    "seqpacket": socket.SOCK_SEQPACKET,
    "udp": socket.SOCK_DGRAM,
    "tcp": socket.SOCK_STREAM,
}

# <linux/in.h>, <linux/in6.h> and <asm-generic/socket.h>; the socket module lacks them
IP_FREEBIND = 15
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
IPV6_FREEBIND = 78
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33


def open_unix(
    spec: Descriptor, rights: Rights | None = None, is_local: IsLocal | None = None
) -> tuple[int, Inode | None]:
    """Return a Unix socket as a descriptor, which the caller owns, and the inode of the file that bind made.

    A service with the `rights` of root is connected through every link. Raises StepError: ServedFileError, before
    any access, where a folder of the path or the file is not `is_local`.
    """
    with step(f"create {spec.kind} socket", spec.path):
        sock = socket.socket(socket.AF_UNIX, _TYPES[spec.kind])
    inode = None
    try:
        set_options(sock, spec, f"{spec.kind} {spec.path}")
        if spec.connect:
            _connect(sock, spec, rights, is_local)
        elif spec.path.startswith("@"):
            with step(f"bind {spec.kind}", spec.path), _known_errno():
                sock.bind(_unix_address(spec.path))
            _listen(sock, spec)
        else:
            inode = _open_at_path(sock, spec, rights, is_local)
        return sock.detach(), inode
    finally:
        sock.close()  # does nothing after detach()


def shut_down_unix(fd: int) -> list[int]:
    """Shut down a Unix socket that other processes have or had; return the clients that have to be closed with it.

    Any sender can have left descriptors in the socket, whose last close may block. Clients in the backlog are
    inspected: those that may hold descriptors are returned, the others are closed. Nothing is read from the
    socket itself: a process that shares it may hang in a read and hold its lock.
    """
    sock = socket.socket(fileno=fd)
    try:
        with contextlib.suppress(OSError):  # the socket is not connected
            sock.shutdown(socket.SHUT_RDWR)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return _clients_with_descriptors(sock) if listens else []
    finally:
        sock.detach()


def _clients_with_descriptors(listener: socket.socket) -> list[int]:
    """Return the queued clients that may have sent descriptors; close the other inspected ones."""
    found: list[int] = []
    for _ in range(MOST_CLIENTS):
        try:
            client, _address = listener.accept()  # the socket is shut down, so this does not block
        except OSError:
            break  # no more clients, or no free descriptor
        if may_hold_others(client):
            found.append(client.detach())
        client.close()
    return found


def unlink_same(path: str, inode: Inode, is_local: IsLocal | None = None) -> None:
    """Remove `path` if it is still the file `inode`. Raises OSError, and ServedFileError as `open_unix` does."""
    with Place(enters=refusal(path, is_local)) as place:
        place.enter(path)
        _unlink_same(place, inode)


def _unlink_same(place: Place, inode: Inode) -> None:
    if _inode(_status(place)) == inode:
        os.unlink(place.name, dir_fd=place.folder)


def _status(place: Place) -> os.stat_result:
    held = place.hold_itself()
    try:
        return os.fstat(held)
    finally:
        os.close(held)


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino


def _unix_address(path: str) -> str:
    return "\0" + path[1:] if path.startswith("@") else path


def _connect(sock: socket.socket, spec: Descriptor, rights: Rights | None, is_local: IsLocal | None) -> None:
    # A connect to a full backlog fails with EAGAIN instead of waiting: unix(7).
    sock.setblocking(False)
    with step("connect", spec.path), _known_errno():
        if spec.path.startswith("@"):
            sock.connect(_unix_address(spec.path))
        else:
            _connect_path(sock, spec.path, rights, is_local)
    sock.setblocking(True)


def _connect_path(sock: socket.socket, path: str, rights: Rights | None, is_local: IsLocal | None) -> None:
    """Connect to the socket at `path`, but through no link, and to no socket, that a user can have put there.

    The peer sees spawnd as root, so a user who could choose the peer would act as root there.
    """
    follows_all = rights is not None and rights.uid == 0
    with place_for(rights, follows_all=follows_all, is_local=is_local, path=path) as place:
        place.enter(path)
        held = place.hold()
        try:
            place.check_hard_links(os.fstat(held))
            sock.connect(f"/proc/self/fd/{held}")
        finally:
            os.close(held)


def _open_at_path(sock: socket.socket, spec: Descriptor, rights: Rights | None, is_local: IsLocal | None) -> Inode:
    bind = step(f"bind {spec.kind}", spec.path)
    with bind, place_for(rights, owner=spec.owner, is_local=is_local, path=spec.path) as place:
        with _known_errno():
            place.enter(spec.path)
            inode = _bind(sock, spec, place, in_time=is_local is not None and not place.is_ours)
        try:
            _set_owner_and_mode(place, spec, inode)
            _listen(sock, spec)
        except BaseException:
            with contextlib.suppress(OSError):
                _unlink_same(place, inode)
            raise
        return inode


def _bind(sock: socket.socket, spec: Descriptor, place: Place, in_time: bool) -> Inode:
    try:
        return _bind_closed(sock, spec.path, place, in_time)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    _remove_stale(place)
    return _bind_closed(sock, spec.path, place, in_time)


def _bind_closed(sock: socket.socket, path: str, place: Place, in_time: bool) -> Inode:
    if in_time:
        try:
            bind_in_time(sock.fileno(), path)
        except TimeoutError as error:
            raise ServedFileError(path) from error
    else:
        umask = os.umask(0o777)
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
    status = _status(place)
    if not stat.S_ISSOCK(status.st_mode) or stat.S_IMODE(status.st_mode) or status.st_nlink != 1:
        raise OSError(errno.ESTALE, "the socket file was replaced")  # owner and mode must not be set on another file
    return _inode(status)


def _remove_stale(place: Place) -> None:
    """Remove a socket file that no process has bound any more, of any owner.

    Raises OSError if it must stay: EADDRINUSE for a bound socket, EEXIST for any other file.
    """
    held = place.hold_itself()
    try:
        status = os.fstat(held)
        whose = f"; it belongs to uid {status.st_uid}, who can have put it there" if place.is_foreign(status) else ""
        if not stat.S_ISSOCK(status.st_mode):
            raise OSError(errno.EEXIST, f"the path exists and is not a socket{whose}")
        if is_bound(f"/proc/self/fd/{held}"):
            raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}{whose}")
        with contextlib.suppress(FileNotFoundError):
            _unlink_same(place, _inode(status))
    finally:
        os.close(held)


def is_bound(path: str) -> bool:
    """Whether some process has the socket file `path` bound.

    The probe is a datagram socket whatever the type at the path. Its connect leaves nothing in the backlog of
    a bound socket of another type (EPROTOTYPE), and sends no packet.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def _listen(sock: socket.socket, spec: Descriptor) -> None:
    if spec.kind != "dgram":
        with step(f"listen on {spec.kind}", spec.path):
            sock.listen(DEFAULT_BACKLOG if spec.backlog is None else spec.backlog)


def _set_owner_and_mode(place: Place, spec: Descriptor, inode: Inode) -> None:
    """Set owner and mode on the file that bind made; it is held meanwhile, in case it is exchanged."""
    with step("open", spec.path):
        fd = place.hold_itself()
    try:
        status = os.fstat(fd)
        if _inode(status) != inode:
            raise failed(f"bind {spec.kind}", spec.path, errno.ESTALE, "the socket file was replaced")
        held = f"/proc/self/fd/{fd}"  # chmod and chown take no O_PATH descriptor
        if spec.owner is not None or spec.group is not None:
            with step("change owner", spec.path):
                os.chown(held, -1 if spec.owner is None else spec.owner, -1 if spec.group is None else spec.group)
        with step("change mode", spec.path):
            os.chmod(held, DEFAULT_MODE if spec.mode is None else spec.mode)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _known_errno() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:  # the socket module's own check of the length
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)) from error
        raise


def open_internet(spec: Descriptor) -> int:
    """Return a bound UDP or a listening TCP socket as a descriptor, which the caller owns. Raises StepError."""
    label = _label(spec)
    family, address = _internet_address(spec, label)
    with step(f"create {label}"):
        sock = socket.socket(family, _TYPES[spec.kind])
    try:
        set_options(sock, spec, label)
        with step(f"bind {label}"):
            _bind_internet(sock, address)
        if spec.kind == "tcp":
            with step(f"listen on {label}"):
                sock.listen(DEFAULT_BACKLOG if spec.backlog is None else spec.backlog)
        return sock.detach()
    finally:
        sock.close()  # does nothing after detach()


def _bind_internet(sock: socket.socket, address: tuple[str, int] | tuple[str, int, int, int]) -> None:
    """Bind, and name the privilege that an ordinary user lacks for a low port. Raises OSError."""
    try:
        sock.bind(address)
    except PermissionError as error:
        if not 0 < address[1] < FIRST_UNPRIVILEGED_PORT:
            raise
        lacks = f"a port below {FIRST_UNPRIVILEGED_PORT} needs root or CAP_NET_BIND_SERVICE"
        raise PermissionError(error.errno, f"{error.strerror}: {lacks}") from error


def _label(spec: Descriptor) -> str:
    """Return the text for messages: `tcp 127.0.0.1:80`, `udp [::1]:69`."""
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    return f"{spec.kind} {host}:{spec.port}"


def _internet_address(spec: Descriptor, label: str) -> tuple[int, tuple[str, int] | tuple[str, int, int, int]]:
    """Return family and address of a numeric host.

    A scope (`fe80::1%eth0`) is looked up where the socket is made, as interfaces belong to a network
    namespace.
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
    except OSError as error:  # its text does not name the interface
        raise failed(f"bind {label}", "", errno.ENODEV, f"no interface {scope!r}") from error


def set_options(sock: socket.socket, spec: Descriptor, label: str) -> None:
    """Set the options of `spec` on a socket before bind: buffer sizes count from the first packet.

    Raises StepError, which names the option and `label`.
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
        # A new spawnd may bind while connections of the old one are in TIME_WAIT. For UDP the option would
        # let two sockets share the port.
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
        _set(sock, "v6only", label, level, socket.IPV6_V6ONLY, 0)  # regardless of net.ipv6.bindv6only
    if spec.interface:
        _set_interface(sock, spec.interface, label)
    if spec.defer_accept is not None:
        _set(sock, "defer_accept", label, socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, round(spec.defer_accept))
    if spec.nodelay and spec.kind == "tcp":
        # accepted connections inherit it from the listening socket
        _set(sock, "nodelay", label, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _set(sock: socket.socket, name: str, label: str, level: int, option: int, value: int | bytes) -> None:
    with step(f"set {name} of {label}"):
        sock.setsockopt(level, option, value)


def _set_interface(sock: socket.socket, name: str, label: str) -> None:
    """Bind to an interface before an address, which sockets of several interfaces may share."""
    try:
        _set(sock, "interface", label, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(name) + b"\0")
    except StepError as error:
        if error.errno != errno.ENODEV:
            raise
        raise failed(error.step, "", errno.ENODEV, f"no interface {name!r}") from error


def _set_buffer(sock: socket.socket, name: str, label: str, force: int, plain: int, value: int) -> None:
    """Set a buffer size; beyond net.core.[rw]mem_max this takes CAP_NET_ADMIN."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, value)
    except PermissionError:
        _set(sock, name, label, socket.SOL_SOCKET, plain, value)
