"""Files of a descriptor table: the modes of fopen(3), opened by root, created with an explicit mode.

The folder of a file may belong to the service's user, who would like to lead root astray.  So
what is opened to be written is reached step by step (`Place`), through symbolic links only
where root alone can have put them there, and never through one to a file that does not exist;
and a hard link that such a user can have made of somebody else's file is refused.  Owner and
mode are set on the descriptor of a file that was created right here, never by path and never on
one that was found.  What is opened to be read alone is found as the kernel finds it: a user who
can exchange the file decides what the service reads.  A spawnd that is not root has nothing to
lend, and follows every link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from types import TracebackType
from typing import Self

from supervisor.definitions.service import Descriptor
from supervisor.process.step import step

DEFAULT_MODE = 0o640  # of a file that is created; spawnd's umask plays no part
READ_FROM_START = frozenset({"r", "r+", "a+"})  # fopen(3): where reading begins at offset 0

_ACCESS = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_TRUNC,
    "a": os.O_WRONLY | os.O_APPEND,
    "a+": os.O_RDWR | os.O_APPEND,
}
# Without O_NONBLOCK, a FIFO or a modem line at the path could hold up spawnd; it is cleared afterwards.
_ALWAYS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_HOLD = os.O_PATH | os.O_CLOEXEC
MAX_LINKS = 40  # on one path, as the kernel has it: path_resolution(7)


class Place:
    """A folder, held open, and a name in it: the end of a path that nobody else can bend.

    Owns `folder`.  Each symbolic link on the way is followed only if it is root's in a folder
    of root's where nobody else can exchange it.  The kernel's own protected_symlinks and
    protected_hardlinks, see proc_sys_fs(5), cover sticky folders and what the user has no
    permission to write, where they are set.
    """

    def __init__(self) -> None:
        self.folder = os.open("/", _HOLD | os.O_DIRECTORY)
        self.name = "."
        self._links_left = MAX_LINKS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        os.close(self.folder)

    def enter(self, path: str) -> None:
        """Go to `path`, from here where it is relative.  Raises OSError, ELOOP for a link that is not to be trusted."""
        if path.startswith("/"):
            self._move("/")
        names = path.split("/")[::-1]
        while len(names) > 1:
            name = names.pop()
            if not name:
                continue
            try:
                self._move(name)
            except NotADirectoryError:
                target = self._follow(name)
                if target is None:
                    self._move(name, 0)
                else:
                    if target.startswith("/"):
                        self._move("/")
                    names.extend(target.split("/")[::-1])
        self.name = names.pop() or "."

    def hold(self) -> int:
        """An O_PATH descriptor, the caller's, of the file here or where links lead, whither this place moves."""
        while True:
            fd = os.open(self.name, _HOLD | os.O_NOFOLLOW, dir_fd=self.folder)
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
            target = self._follow(self.name)
            if target is None:
                return os.open(self.name, _HOLD, dir_fd=self.folder)
            self.enter(target)

    def check_hard_links(self, status: os.stat_result) -> None:
        """Raise OSError, EPERM, for a file of several names that another user can have linked to here."""
        if not stat.S_ISREG(status.st_mode) or status.st_nlink == 1 or os.geteuid() != 0:
            return
        folder = os.fstat(self.folder)
        if (folder.st_uid != 0 and status.st_uid != folder.st_uid) or (folder.st_uid == 0 and folder.st_mode & 0o022):
            raise PermissionError(errno.EPERM, f"{self._here(self.name)!r} is a hard link that a user can have made")

    def _move(self, name: str, nofollow: int = os.O_NOFOLLOW) -> None:
        # O_DIRECTORY also has an automounter mount what belongs here
        fd = os.open(name, _HOLD | os.O_DIRECTORY | nofollow, dir_fd=self.folder)
        os.close(self.folder)
        self.folder = fd

    def _follow(self, name: str) -> str | None:
        """The target of the link `name`; None where only the kernel can follow it, as /proc/self/fd/1.

        Raises OSError: ENOTDIR for what is no link, ELOOP for one that is not to be trusted, or one too many.
        """
        link = os.open(name, _HOLD | os.O_NOFOLLOW, dir_fd=self.folder)
        try:
            status = os.fstat(link)
            if not stat.S_ISLNK(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self._links_left -= 1
            if self._links_left < 0:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if not self._trusts(status):
                raise OSError(errno.ELOOP, f"the symbolic link {self._here(name)!r} is not followed: a user can set it")
            if status.st_dev == os.stat("/proc").st_dev:
                return None
            return os.readlink("", dir_fd=link)
        finally:
            os.close(link)

    def _trusts(self, link: os.stat_result) -> bool:
        if os.geteuid() != 0:
            return True
        folder = os.fstat(self.folder)
        replaceable = folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX
        return link.st_uid == 0 and folder.st_uid == 0 and not replaceable

    def _here(self, name: str) -> str:
        return f"{os.readlink(f'/proc/self/fd/{self.folder}').rstrip('/')}/{name}"


def open_file(spec: Descriptor) -> int:
    """Open a file; the caller owns the descriptor.  Raises StepError."""
    with step("open", spec.path):
        # a FIFO is written to also with "r", see _open_found
        if spec.access == "r" and not stat.S_ISFIFO(os.stat(spec.path).st_mode):
            return _open_to_read(spec.path)
        return _open_to_write(spec)


def _open_to_read(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | _ALWAYS)
    try:
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_to_write(spec: Descriptor) -> int:
    with Place() as place:
        fd, created = _open(place, spec)
        try:
            if created:
                _set_owner_and_mode(fd, spec)
            os.set_blocking(fd, True)
        except BaseException:
            if created:
                with contextlib.suppress(OSError):
                    os.unlink(place.name, dir_fd=place.folder)
            os.close(fd)
            raise
    return fd


def _open(place: Place, spec: Descriptor) -> tuple[int, bool]:
    """The descriptor, and whether the file was created."""
    access = _ACCESS[spec.access]
    if not spec.access.startswith(("w", "a")):
        place.enter(spec.path)
        return _open_found(place, access), False
    for _ in range(2):
        place.enter(spec.path)
        try:
            return os.open(place.name, access | _ALWAYS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place.folder), True
        except FileExistsError:
            pass
        try:
            return _open_found(place, access), False
        except FileNotFoundError:
            pass  # removed in between, say by a rotation of logs; or a link that leads nowhere
    raise FileNotFoundError(errno.ENOENT, "a symbolic link that leads nowhere")


def _open_found(place: Place, access: int) -> int:
    """Open the existing file at `place`; a FIFO for both directions.

    So it never waits for its other end and never fails for want of a reader; and a service
    that reads it gets no end of file each time that the last writer leaves.
    """
    held = place.hold()  # looked at before it is opened, as opening with O_TRUNC is harm already
    try:
        status = os.fstat(held)
        place.check_hard_links(status)
        if stat.S_ISFIFO(status.st_mode):
            access = os.O_RDWR
        return os.open(f"/proc/self/fd/{held}", access | _ALWAYS)
    finally:
        os.close(held)


def _set_owner_and_mode(fd: int, spec: Descriptor) -> None:
    if spec.owner is not None or spec.group is not None:
        with step("change owner", spec.path):
            os.fchown(fd, -1 if spec.owner is None else spec.owner, -1 if spec.group is None else spec.group)
    with step("change mode", spec.path):
        os.fchmod(fd, DEFAULT_MODE if spec.mode is None else spec.mode)
