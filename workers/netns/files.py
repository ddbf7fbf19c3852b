"""The files of a network namespace: its name, its resolv.conf, its kernel settings.

The name is a mount on a file in `/run/netns`, where ip-netns(8) and other programs look for it. Both
ip-netns(8) and spawnd bind `/etc/netns/NAME/resolv.conf` over `/etc/resolv.conf` for processes inside.
`/proc/sys/net` shows the settings of the namespace of the process that opens it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from supervisor.linux.namespaces import CLONE_NEWNET, MNT_DETACH, MS_BIND, MS_REC, MS_SHARED, mount, umount2
from workers.netns.plan import ForeignError, SetUpError, written_by

FOLDER = "/run/netns"
RESOLVER_FOLDER = "/etc/netns"
RESOLVER_MODE = 0o644
SETTINGS_FOLDER = "/proc/sys"
OWN = "/proc/thread-self/ns/net"
NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
SIOCGSKNS = 0x894C  # <linux/sockios.h>
LOCK_LIMIT = 10.0  # seconds; ip-netns(8) has the lock for milliseconds
LOCK_PAUSE = 0.02  # seconds between two attempts


def path_of(name: str) -> str:
    return f"{FOLDER}/{name}"


def open_namespace(name: str) -> int | None:
    """Return a descriptor of the namespace with that name, owned by the caller; None if there is none.

    A file without a mount is left over from a namespace that is gone. Raises OSError, or ForeignError for a
    file that is something else.
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
    """Return device and inode, unique among the namespaces of a moment."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def give_name(name: str, source: str = OWN) -> None:
    """Give a namespace the name; by default that of the calling thread. Raises OSError."""
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
    """Remove the name with every mount on it; the namespace ends with its last process. Raises OSError."""
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
    """Return a descriptor of a socket's network namespace, owned by the caller. Raises OSError."""
    return fcntl.ioctl(sock, SIOCGSKNS)


@contextmanager
def _folder() -> Iterator[None]:
    """Make and lock the folder as a shared mount, so that names reach processes with their own mounts.

    `ip netns add` does the same and takes the same lock.
    """
    os.makedirs(FOLDER, 0o755, exist_ok=True)
    fd = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd)
        _share()
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    """Lock the folder within a time limit: any process that may read it can keep its lock. Raises TimeoutError."""
    deadline = time.monotonic() + LOCK_LIMIT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                text = f"another process has kept {FOLDER} locked for {LOCK_LIMIT:g} s; lslocks(8) names it"
                raise TimeoutError(errno.ETIMEDOUT, text) from None
            time.sleep(LOCK_PAUSE)
        else:
            return


def _share() -> None:
    try:
        mount("", FOLDER, "none", MS_SHARED | MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        mount(FOLDER, FOLDER, "none", MS_BIND | MS_REC)  # it was no mount yet
        mount("", FOLDER, "none", MS_SHARED | MS_REC)


# resolv.conf


def _resolver_path(name: str) -> str:
    return f"{RESOLVER_FOLDER}/{name}/resolv.conf"


def read_resolver(name: str) -> str | None:
    """Return the text of our own file, None without one. Raises OSError, ForeignError."""
    path = _resolver_path(name)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    if not text.startswith(written_by(name)):
        raise ForeignError(f"cannot write {path}: it is there already, and not written by spawnd")
    return text


def write_resolver(name: str, text: str) -> None:
    """Write the file as a whole; an existing one stays the same file, as processes inside have it mounted.

    Raises OSError.
    """
    path = _resolver_path(name)
    data = text.encode()
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        _create(path, data)
        return
    try:
        # In one write: a reader in between finds empty lines behind the new text, and nothing of the old one.
        os.pwrite(fd, data.ljust(os.fstat(fd).st_size, b"\n"), 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def _create(path: str, data: bytes) -> None:
    folder, new = os.path.dirname(path), f"{path}.new"
    os.makedirs(folder, 0o755, exist_ok=True)
    try:
        with open(new, "wb") as file:
            os.fchmod(file.fileno(), RESOLVER_MODE)
            file.write(data)
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            os.unlink(new)
        with suppress(OSError):
            os.rmdir(folder)
        raise


def remove_resolver(name: str) -> None:
    """Remove the file if it is our own, and the folder if it is empty then. Raises OSError."""
    path = _resolver_path(name)
    with suppress(ForeignError):
        if read_resolver(name) is not None:
            os.unlink(path)
            with suppress(OSError):
                os.rmdir(os.path.dirname(path))


# kernel settings


def check_setting(path: str, inside: str) -> None:
    """Raise SetUpError for a setting that this kernel does not have.

    A setting of the interface `inside`, which does not exist here, is looked up as that of `default`.
    """
    parts = ["default" if part == inside else part for part in path.split("/")]
    if not os.path.isfile("/".join((SETTINGS_FOLDER, *parts))):
        raise SetUpError(f"cannot set {path}: the kernel has no such setting; is its module loaded?")


def is_set(path: str, value: str) -> bool:
    """Whether a setting exists and has this value in the namespace of the calling thread."""
    try:
        with open(f"{SETTINGS_FOLDER}/{path}", encoding="ascii") as file:
            return file.read().split() == value.split()
    except OSError:
        return False


def apply_setting(path: str, value: str) -> bool:
    """Set a setting in the namespace of the calling thread; return whether that changed it. Raises SetUpError."""
    try:
        with open(f"{SETTINGS_FOLDER}/{path}", "r+", encoding="ascii") as file:
            if file.read().split() == value.split():
                return False
            file.seek(0)
            file.write(value)
    except OSError as error:
        raise SetUpError(f"cannot set {path} to {value!r}: {error.strerror}") from error
    return True
