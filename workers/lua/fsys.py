"""`fsys`: files and folders, mounts, descriptors.  The Lua part has checked the arguments; paths are bytes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Mapping

from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.linux.mount import MNT_DETACH, MNT_FORCE, umount2
from workers.lua.accounts import gid_of, uid_of
from workers.lua.mount_options import mount_all, parse
from workers.lua.result import with_errno
from workers.lua.state import Value

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
FLAGS = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "a+": os.O_RDWR | os.O_CREAT | os.O_APPEND,
}
ACCESS = {"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}
LARGEST = 64 << 20  # bytes that `read` returns at most
CHUNK = 1 << 20


class Fsys:
    name = "fsys"
    waiting: Mapping[str, Callable[..., Value]] = {}

    def __init__(self) -> None:
        self.functions = with_errno({
            "stat": _stat,
            "mkdir": _mkdir,
            "rmdir": os.rmdir,
            "rename": os.rename,
            "remove": _remove,
            "copy": _copy,
            "symlink": os.symlink,
            "readlink": os.readlink,
            "chmod": os.chmod,
            "chown": _chown,
            "dir": _dir,
            "mount": _mount,
            "umount": _umount,
            "access": _access,
            "read": _read,
            "write": _write,
            "umask": os.umask,
            "chdir": os.chdir,
            "open": _open,
            "dup": _dup,
            "close": _close,
        })

    def close(self) -> None:
        pass


def _stat(path: bytes, follow: bool) -> Value:
    """In the order in which the Lua part names them."""
    found = os.stat(path, follow_symlinks=follow)
    kind = KINDS.get(stat.S_IFMT(found.st_mode), "unknown")
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    times = (found.st_mtime, found.st_atime, found.st_ctime)
    place = (found.st_ino, found.st_dev, found.st_rdev, found.st_nlink)
    return kind, mode, found.st_size, found.st_uid, found.st_gid, *times, *place


def _mkdir(path: bytes, mode: int | None, parents: bool) -> None:
    if parents:
        above = os.path.dirname(path.rstrip(b"/"))
        if above and not os.path.isdir(above):
            _mkdir(above, None, True)
        with contextlib.suppress(FileExistsError):
            _make(path, mode)
        if not os.path.isdir(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    else:
        _make(path, mode)


def _make(path: bytes, mode: int | None) -> None:
    os.mkdir(path, 0o777 if mode is None else mode)
    if mode is not None:
        os.chmod(path, mode)  # what is said counts, whatever the umask


def _remove(path: bytes, recursive: bool) -> None:
    if recursive and stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)  # follows no link
    else:
        os.remove(path)


def _copy(source: bytes, target: bytes) -> None:
    """A regular file with its permissions.  The target is written under another name and then takes its place."""
    with open(source, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", source)
        new = target + b".new-%d" % os.getpid()
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as copy:
                shutil.copyfileobj(file, copy, CHUNK)
                os.fchmod(copy.fileno(), status.st_mode & 0o777)  # the owner is another, who gives nobody its rights
            os.rename(new, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise


def _chown(path: bytes, user: bytes | None, group: bytes | None, follow: bool) -> None:
    """A name or a number in digits; None leaves it."""
    uid = -1 if user is None else uid_of(user)
    gid = -1 if group is None else gid_of(group)
    os.chown(path, uid, gid, follow_symlinks=follow)


def _dir(path: bytes) -> bytes:
    """The names, each with a NUL behind it, which none of them holds."""
    return b"".join(name + b"\0" for name in sorted(os.listdir(path)))


def _mount(source: bytes, target: bytes, kind: bytes, options: bytes) -> None:
    mount_all(os.fsdecode(source), os.fsdecode(target), os.fsdecode(kind), parse(options))


def _umount(target: bytes, lazy: bool, force: bool) -> None:
    umount2(os.fsdecode(target), (MNT_DETACH if lazy else 0) | (MNT_FORCE if force else 0))


def _access(path: bytes, wanted: bytes) -> None:
    mode = os.F_OK
    for letter in wanted.decode():
        mode |= ACCESS[letter]
    if not os.access(path, mode, effective_ids=True):
        os.stat(path)  # the better error, where it does not exist
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _read(path: bytes) -> bytes:
    with open(path, "rb", buffering=0) as file:
        data = bytearray()
        while chunk := file.read(CHUNK):
            data += chunk
            if len(data) > LARGEST:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return bytes(data)


def _write(path: bytes, data: bytes, mode: int | None, append: bool) -> None:
    """Not by way of another name: files of `/proc` and `/sys` are written, too."""
    flags = FLAGS["a" if append else "w"] | os.O_CLOEXEC | os.O_NOCTTY
    fd = os.open(path, flags, 0o666 if mode is None else mode)
    try:
        if mode is not None:
            os.fchmod(fd, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)


def _open(path: bytes, mode: bytes) -> int:
    return os.open(path, FLAGS[mode.decode()] | os.O_CLOEXEC | os.O_NOCTTY, 0o666)


def _dup(fd: int, number: int | None) -> int:
    """With a number, what is there is closed, and programs that are executed have the new one; see dup2(2)."""
    if number is None:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    if fd == number:
        os.set_inheritable(fd, True)
        return fd
    return os.dup2(fd, number, inheritable=True)


def _close(first: int, last: int | None) -> None:
    """One descriptor, or all from the first to the last, whether they are open or not."""
    if last is None:
        os.close(first)
    else:
        close_range(first, min(last, LAST_DESCRIPTOR))
