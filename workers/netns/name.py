"""The name of a network namespace: a mount on a file, where ip-netns(8) and everybody else looks for it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from supervisor.linux.mount import MNT_DETACH, MS_BIND, MS_REC, MS_SHARED, mount, umount2
from supervisor.linux.namespaces import CLONE_NEWNET
from workers.netns.errors import ForeignError

FOLDER = "/run/netns"
OWN = "/proc/thread-self/ns/net"
NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
SIOCGSKNS = 0x894C  # <linux/sockios.h>


def path_of(name: str) -> str:
    return f"{FOLDER}/{name}"


def open_namespace(name: str) -> int | None:
    """A descriptor of the namespace of that name, which is the caller's; None where there is none.

    A file on which nothing is mounted is left over: the mount went and it stayed.  Raises OSError,
    ForeignError for a file that is something else.
    """
    path = path_of(name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    if _is_network(fd):
        return fd
    size = os.fstat(fd).st_size
    os.close(fd)
    if size:
        raise ForeignError(f"cannot use {path}: it is not a network namespace")
    return None


def _is_network(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:  # not the file of a namespace
        return False


def identity(fd: int) -> tuple[int, int]:
    """Device and inode, which no two namespaces have at a time."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def give_name(name: str, source: str = OWN) -> None:
    """Give a namespace the name; that of the calling thread where no other `source` is said.  Raises OSError."""
    path = path_of(name)
    with _folder():
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0))
        try:
            mount(source, path, flags=MS_BIND)
        except OSError:
            with suppress(OSError):
                os.unlink(path)
            raise


def take_name(name: str) -> None:
    """Take the name away, with every mount on it; the namespace ends with the last who is in it.  Raises OSError."""
    path = path_of(name)
    while True:
        try:
            umount2(path, MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
            break
    with suppress(FileNotFoundError):
        os.unlink(path)


def namespace_of_socket(sock: int) -> int:
    """A descriptor of the network namespace that a socket is in; it is the caller's.  Raises OSError."""
    return fcntl.ioctl(sock, SIOCGSKNS)


@contextmanager
def _folder() -> Iterator[None]:
    """The folder, made and locked: a shared mount, so that names reach those who have mounts of their own.

    As `ip netns add` does it, which takes the same lock.
    """
    os.makedirs(FOLDER, 0o755, exist_ok=True)
    fd = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _share()
        yield
    finally:
        os.close(fd)


def _share() -> None:
    try:
        mount("", FOLDER, "none", MS_SHARED | MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        mount(FOLDER, FOLDER, "none", MS_BIND | MS_REC)  # it was no mount yet
        mount("", FOLDER, "none", MS_SHARED | MS_REC)
