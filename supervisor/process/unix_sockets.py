"""Unix sockets: bound for a service to serve, or connected for it to use.

A path is bound so that nobody can use the socket before its owner and mode are set: bind
makes the file with no permission at all.  A socket file that is left from a process that
is gone is replaced; one that is alive, and whatever is no socket, stays.

bind(2) takes a path and no folder that is held, and the path must be the real one, for it is what
getsockname tells.  So the way is checked before (`Place`), and the file that was made is looked for
there afterwards: a user who is quick can have an empty socket file without permissions made
elsewhere, and the step fail, but nothing there is removed or changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator

from supervisor.definitions.service import Descriptor
from supervisor.process.files import Place
from supervisor.process.internet_sockets import DEFAULT_BACKLOG
from supervisor.process.socket_options import set_options
from supervisor.process.step import failed, step

DEFAULT_MODE = 0o666  # as if made under umask 0: clients that must not connect are kept out by a mode of the definition

Inode = tuple[int, int]  # device and number

_TYPES = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}


def open_unix(spec: Descriptor) -> tuple[int, Inode | None]:
    """A Unix socket as a descriptor that the caller owns, and the inode of the file that bind made.

    Raises StepError.
    """
    with step(f"create {spec.kind} socket", spec.path):
        sock = socket.socket(socket.AF_UNIX, _TYPES[spec.kind])
    inode = None
    try:
        set_options(sock, spec, f"{spec.kind} {spec.path}")
        if spec.connect:
            _connect(sock, spec)
        else:
            inode = _bind(sock, spec)
            _let_in(sock, spec, inode)
        return sock.detach(), inode
    except BaseException:
        if inode is not None:
            with contextlib.suppress(OSError):
                unlink_same(spec.path, inode)
        raise
    finally:
        sock.close()  # nothing after detach()


def unlink_same(path: str, inode: Inode) -> None:
    """Remove `path` if it is still the file `inode`.  Raises OSError."""
    with Place() as place:
        place.enter(path)
        _unlink_same(place, inode)


def _unlink_same(place: Place, inode: Inode) -> None:
    if _inode(_status(place)) == inode:
        os.unlink(place.name, dir_fd=place.folder)


def _status(place: Place) -> os.stat_result:
    return os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino


def _address(path: str) -> str:
    return "\0" + path[1:] if path.startswith("@") else path


def _connect(sock: socket.socket, spec: Descriptor) -> None:
    # A connect to a full backlog would wait for room; so it is EAGAIN, unix(7).
    sock.setblocking(False)
    with step("connect", spec.path), _known_errno():
        sock.connect(_address(spec.path))
    sock.setblocking(True)


def _bind(sock: socket.socket, spec: Descriptor) -> Inode | None:
    with step(f"bind {spec.kind}", spec.path), _known_errno():
        if spec.path.startswith("@"):
            sock.bind(_address(spec.path))
            return None
        with Place() as place:
            place.enter(spec.path)
            try:
                return _bind_closed(sock, spec.path, place)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            _remove_stale(spec.path, place)
            return _bind_closed(sock, spec.path, place)


def _bind_closed(sock: socket.socket, path: str, place: Place) -> Inode:
    umask = os.umask(0o777)
    try:
        sock.bind(path)
    finally:
        os.umask(umask)
    return _inode(_status(place))


def _remove_stale(path: str, place: Place) -> None:
    """Remove a socket file that no process has bound any more.  Raises OSError, EADDRINUSE where it must stay."""
    status = _status(place)
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(errno.EADDRINUSE, "the path exists and is no socket")
    if _is_alive(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    with contextlib.suppress(FileNotFoundError):
        _unlink_same(place, _inode(status))


def _is_alive(path: str) -> bool:
    """Whether some process has the socket file `path` bound.

    The probe is a datagram socket whatever the type at the path: connecting it leaves nothing
    in the backlog of a living one of another type (EPROTOTYPE), nor does it send a packet.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def _let_in(sock: socket.socket, spec: Descriptor, inode: Inode | None) -> None:
    if inode is not None:
        _set_owner_and_mode(spec, inode)
    if spec.kind != "dgram":
        with step(f"listen on {spec.kind}", spec.path):
            sock.listen(DEFAULT_BACKLOG if spec.backlog is None else spec.backlog)


def _set_owner_and_mode(spec: Descriptor, inode: Inode) -> None:
    """On the file that bind made and no other, should somebody exchange it: it is held while it is changed."""
    with step("open", spec.path):
        fd = os.open(spec.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
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
