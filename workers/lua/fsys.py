"""`fsys`: files and folders, mounts, descriptors. The Lua part has checked the arguments; paths are bytes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.linux.namespaces import MNT_DETACH, MNT_FORCE, UMOUNT_NOFOLLOW, umount2
from supervisor.linux.place import NewFile, Place
from workers.lua.mount_options import mount_all, parse
from workers.lua.paths import about, by_number, held, held_again, is_folder, named, opened, place_for, stripped
from workers.lua.state import Value, with_errno
from workers.lua.unix import gid_of, uid_of

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

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


@dataclass(slots=True)
class _Level:
    """A folder on the way down: its name in the folder above, its identity, and the names still to be removed."""

    name: str
    identity: tuple[int, int]
    names: list[str]


def remove_tree(name: str, folder: int) -> None:
    """Remove the folder `name` in the open folder `folder` with everything in it. Raises OSError.

    One descriptor is open at a time, however deep the tree is. The way back up is `..`, and fails with ESTALE
    if the folder was moved meanwhile.
    """
    top = os.fstat(folder)
    fd = os.open(name, _FOLDER, dir_fd=folder)
    try:
        levels = [_level(name, fd)]
        while levels:
            level = levels[-1]
            below = _next_folder(level, fd)
            if below is not None:
                fd = _replaced(fd, os.open(below, _FOLDER, dir_fd=fd))
                levels.append(_level(below, fd))
                continue
            levels.pop()
            above = levels[-1].identity if levels else (top.st_dev, top.st_ino)
            fd = _replaced(fd, _above(fd, above))
            os.rmdir(level.name, dir_fd=fd)
    finally:
        os.close(fd)


def _level(name: str, fd: int) -> _Level:
    return _Level(name, _identity(os.fstat(fd)), os.listdir(fd))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _next_folder(level: _Level, fd: int) -> str | None:
    """Remove everything but folders; return the first folder's name, None after the last."""
    while level.names:
        name = level.names.pop()
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                return name
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass  # another process was faster
    return None


def _above(fd: int, identity: tuple[int, int]) -> int:
    above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    if _identity(os.fstat(above)) != identity:
        os.close(above)
        raise OSError(errno.ESTALE, "the directory was moved while it was being removed")
    return above


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new


class Fsys:
    name = "fsys"
    waiting: Mapping[str, Callable[..., Value]] = {}

    def __init__(self) -> None:
        self.functions = with_errno({
            "stat": _stat,
            "lstat": _lstat,
            "mkdir": _mkdir,
            "rmdir": _rmdir,
            "rename": _rename,
            "remove": _remove,
            "copy": _copy,
            "symlink": _symlink,
            "readlink": _readlink,
            "chmod": _chmod,
            "chown": _chown,
            "dir": _dir,
            "mount": _mount,
            "umount": _umount,
            "access": _access,
            "read": _read,
            "write": _write,
            "umask": os.umask,
            "chdir": _chdir,
            "open": _open,
            "dup": _dup,
            "close": _close,
        })

    def close(self) -> None:
        pass


def _stat(path: bytes, follow: bool) -> Value:
    """Return the fields in the order in which the Lua part names them."""
    with held(path, follow, looks=True) as (fd, _):
        return _fields(os.fstat(fd))


def _lstat(path: bytes, follow: bool) -> Value:
    with named(path, follow, looks=True) as place:
        return _fields(os.stat(place.name, dir_fd=place.folder, follow_symlinks=False))


def _fields(found: os.stat_result) -> Value:
    kind = KINDS.get(stat.S_IFMT(found.st_mode), "unknown")
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    times = (found.st_mtime, found.st_atime, found.st_ctime)
    place = (found.st_ino, found.st_dev, found.st_rdev, found.st_nlink)
    return kind, mode, found.st_size, found.st_uid, found.st_gid, *times, *place


def _mkdir(path: bytes, mode: int | None, parents: bool, follow: bool) -> None:
    with about(path), place_for(follow) as place:
        text = stripped(path)
        if parents:
            _make_parents(place, text)
            text = text.rpartition("/")[2] or "."
        place.enter(text)
        with contextlib.suppress(*(FileExistsError,) if parents else ()):
            os.mkdir(place.name, 0o777 if mode is None else mode, dir_fd=place.folder)
            if mode is not None:
                _set_mode(place, mode)  # the given mode counts, whatever the umask
            return
        if not stat.S_ISDIR(_status(place).st_mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _make_parents(place: Place, path: str) -> None:
    """Make the missing folders above `path`, and enter them."""
    if path.startswith("/"):
        place.enter("/")
    for name in filter(None, path.rpartition("/")[0].split("/")):
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=place.folder)
        place.enter(f"{name}/")


def _set_mode(place: Place, mode: int) -> None:
    fd = os.open(place.name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.folder)
    try:
        os.chmod(by_number(fd), mode)
    finally:
        os.close(fd)


def _status(place: Place) -> os.stat_result:
    with held_again(place) as fd:
        return os.fstat(fd)


def _rmdir(path: bytes, follow: bool) -> None:
    with named(path, follow, looks=True) as place:
        os.rmdir(place.name, dir_fd=place.folder)


def _rename(source: bytes, target: bytes, follow: bool) -> None:
    with named(source, follow) as old, named(target, follow, exists=False) as new, about(source):
        if target.endswith(b"/") and not is_folder(old):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        os.rename(old.name, new.name, src_dir_fd=old.folder, dst_dir_fd=new.folder)


def _remove(path: bytes, recursive: bool, follow: bool) -> None:
    """Remove a name; a link at the end of the path is never followed, not even with a slash behind it."""
    with named(path, follow, looks=True) as place:
        if place.name in (".", ".."):
            raise OSError(errno.EINVAL, "'.' and '..' at the end of a path cannot be removed")
        if recursive and is_folder(place):
            remove_tree(place.name, place.folder)
        else:
            os.unlink(place.name, dir_fd=place.folder)


def _symlink(target: bytes, path: bytes, follow: bool) -> None:
    with named(path, follow, exists=False) as place:
        os.symlink(os.fsdecode(target), place.name, dir_fd=place.folder)


def _readlink(path: bytes, follow: bool) -> str:
    with named(path, follow, looks=True) as place:
        return os.readlink(place.name, dir_fd=place.folder)


def _chmod(path: bytes, mode: int, follow: bool) -> None:
    with held(path, follow) as (fd, place):
        place.check_hard_links(os.fstat(fd))
        os.chmod(by_number(fd), mode)


def _chown(path: bytes, user: bytes | None, group: bytes | None, link: bool, follow: bool) -> None:
    """Change the owner, given by name or number in digits; None leaves user or group unchanged."""
    uid = -1 if user is None else uid_of(user)
    gid = -1 if group is None else gid_of(group)
    if link:
        with named(path, follow) as place:
            status = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
            place.check_owner(status, place.name)
            place.check_hard_links(status)
            os.chown(place.name, uid, gid, dir_fd=place.folder, follow_symlinks=False)
        return
    with held(path, follow) as (fd, place):
        place.check_hard_links(os.fstat(fd))
        os.chown(by_number(fd), uid, gid)


def _dir(path: bytes, follow: bool) -> bytes:
    """Return the names in a folder, each followed by a NUL, which no name contains."""
    with held(path, follow, looks=True) as (fd, _):
        names = os.listdir(os.fsencode(f"{by_number(fd)}/."))
    return b"".join(name + b"\0" for name in sorted(names))


def _mount(source: bytes, target: bytes, kind: bytes, options: bytes, follow: bool) -> None:
    parsed = parse(options)
    with contextlib.ExitStack() as stack:
        if parsed.is_of_a_folder:
            fd, _ = stack.enter_context(held(source, follow))
            source = by_number(fd).encode()
        elif source.startswith(b"/"):
            with contextlib.suppress(FileNotFoundError), held(source, follow):
                pass  # a device, whose name the kernel keeps, is checked before it is used
        place = stack.enter_context(_mount_point(target, follow))
        mount_all(os.fsdecode(source), lambda: held_again(place), os.fsdecode(kind), parsed)


def _umount(target: bytes, lazy: bool, force: bool, follow: bool) -> None:
    with _mount_point(target, follow) as place:
        flags = (MNT_DETACH if lazy else 0) | (MNT_FORCE if force else 0) | UMOUNT_NOFOLLOW
        umount2(f"{by_number(place.folder)}/{place.name}", flags)


@contextlib.contextmanager
def _mount_point(path: bytes, follow: bool) -> Iterator[Place]:
    """Yield the place of a path without holding it: a held mount cannot be unmounted."""
    with about(path), place_for(follow, looks=True) as place:  # the place is only covered, and later uncovered
        place.enter(stripped(path))
        os.close(place.hold())
        yield place


def _access(path: bytes, wanted: bytes, follow: bool) -> None:
    mode = os.F_OK
    for letter in wanted.decode():
        mode |= ACCESS[letter]
    with held(path, follow, looks=True) as (fd, _):
        if not os.access(by_number(fd), mode, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _read(path: bytes, follow: bool) -> bytes:
    with opened(path, os.O_RDONLY, follow) as fd:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "a FIFO has no end that it could be read to")
        data = bytearray()
        while chunk := os.read(fd, CHUNK):
            data += chunk
            if len(data) > LARGEST:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return bytes(data)


def _write(path: bytes, data: bytes, mode: int | None, append: bool, follow: bool) -> None:
    """Write directly rather than through a temporary name, because the file may be in `/proc` or `/sys`."""
    flags = FLAGS["a" if append else "w"]
    with opened(path, flags, follow, 0o666 if mode is None else mode) as fd:
        if mode is not None:
            os.fchmod(fd, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]


def _copy(source: bytes, target: bytes, follow: bool) -> None:
    """Copy a regular file with its permissions. The copy gets its name once it is complete."""
    with opened(source, os.O_RDONLY, follow) as fd, named(target, follow, exists=False) as place:
        with about(source):
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
        with NewFile(place.folder) as copy:
            with open(fd, "rb", closefd=False) as file, open(copy.fd, "wb", closefd=False) as written:
                shutil.copyfileobj(file, written, CHUNK)
            os.fchmod(copy.fd, status.st_mode & 0o777)  # without set-ID bits, because the copy has another owner
            copy.give_name(place.name)


def _chdir(path: bytes, follow: bool) -> None:
    with held(path, follow) as (fd, _):
        os.fchdir(fd)


def _open(path: bytes, mode: bytes, follow: bool) -> int:
    """Open a file. A FIFO is opened for both directions, like `file` in definitions, and so does not block."""
    with about(path), place_for(follow) as place:
        fd, _ = place.open(os.fsdecode(path), FLAGS[mode.decode()], 0o666)
    os.set_blocking(fd, True)
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(max(fd, copy))  # a script gets the lowest free number, as from open(2)
    return min(fd, copy)


def _dup(fd: int, number: int | None) -> int:
    """Duplicate a descriptor; at a given number, it replaces an open one and is inherited by programs: see dup2(2)."""
    if number is None:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    if fd == number:
        os.set_inheritable(fd, True)
        return fd
    return os.dup2(fd, number, inheritable=True)


def _close(first: int, last: int | None) -> None:
    """Close one descriptor, or all from the first to the last, open or not."""
    if last is None:
        os.close(first)
    else:
        close_range(first, min(last, LAST_DESCRIPTOR))
