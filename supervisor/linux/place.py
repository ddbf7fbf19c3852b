"""Resolution of a path step by step, as far as root can trust it: see path_resolution(7).

A folder on the way may belong to an ordinary user, who may try to mislead root. Therefore root follows a
symbolic link only if root alone could have created it. A process without root's privileges follows every
link, because nobody gains by misleading it.

In a folder such as /tmp any user can have created a file at the path before. The kernel's protected_regular
and protected_fifos, see proc_sys_fs(5), apply only to open(2) with O_CREAT, and not to sockets and folders.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from types import TracebackType
from typing import Self

from supervisor.linux.file_status import is_proc

MAX_LINKS = 40  # on one path, like in the kernel
_HOLD = os.O_PATH | os.O_CLOEXEC
# Without O_NONBLOCK, a FIFO, a modem line or a lease at the path could block the caller.
ALWAYS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class ForeignFile(OSError):
    """EACCES for a file that another user can have created in a folder that all users may write to."""


class UntrustedLink(OSError):
    """A link that a user other than root can have made: ELOOP for a symbolic link, EPERM for a hard link.

    `rest` is the path from where the walk stopped: the link, and the names after it.
    """

    def __init__(self, number: int, message: str, rest: str) -> None:
        super().__init__(number, message)
        self.rest = rest


class Place:
    """An open folder and a name in it: the end of a path that other users cannot redirect.

    Owns `folder`. A symbolic link on the way is followed only if it belongs to root, in a folder of root in
    which no other user can replace it. The kernel's own protected_symlinks and protected_hardlinks, see
    proc_sys_fs(5), cover sticky folders and files that the user may not write, and may be disabled.
    `follows_all`: every link is followed, like in the kernel.

    `owners` are users, besides root, the user of this process and the owner of the folder, whose files are
    accepted in a folder that all users may write to. None: the files of all users, for a caller that does not
    use their content.

    `is_ours` is whether nobody but root and the user of this process could have changed the way so far: no other
    user owns a folder on it, or may write to one that is not sticky. Nobody else can mount anything there, either.

    `enters` is called before the walk asks a file system anything: with an O_PATH descriptor of each folder and the
    name to be looked up there, and with a descriptor of each folder and file on the way and no name. An exception
    of it ends the walk.
    """

    def __init__(
        self,
        start: str = "/",
        *,
        follows_all: bool = False,
        owners: Collection[int] | None = None,
        enters: Callable[[int, str], None] = lambda _fd, _name: None,
    ) -> None:
        self.folder = os.open(start, _HOLD | os.O_DIRECTORY)
        self.name = "."
        self.is_ours = True
        self._follows_all = follows_all or os.geteuid() != 0
        self._shuns_proc = False
        self._owners = None if owners is None else {0, os.geteuid(), *owners}
        self._enters = enters
        self._links_left = MAX_LINKS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        os.close(self.folder)

    def enter(self, path: str) -> None:
        """Go to `path`, relative to the current place. Raises OSError, including UntrustedLink and ForeignFile."""
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
                target = self._follow(name, "/".join([name, *reversed(names)]))
                if target is None:
                    self._move(name, 0)
                else:
                    if target.startswith("/"):
                        self._move("/")
                    names.extend(target.split("/")[::-1])
        self.name = names.pop() or "."

    def follow_all(self) -> None:
        """Follow all links from now on, as the rights of the caller are now those of their owner, but none of `/proc`.

        Links of `/proc` would lead to the open files of this process.
        """
        self._follows_all = self._shuns_proc = True

    def hold(self) -> int:
        """Return an O_PATH descriptor of the file here, after following links; the caller owns it.

        The place moves to the file behind the links. Raises OSError, including UntrustedLink and ForeignFile.
        """
        while True:
            fd = self.hold_itself()
            try:
                status = os.fstat(fd)
                self.check_owner(status, self.name)
            except BaseException:
                os.close(fd)
                raise
            if not stat.S_ISLNK(status.st_mode):
                return fd
            os.close(fd)
            target = self._follow(self.name, self.name)
            if target is None:
                return os.open(self.name, _HOLD, dir_fd=self.folder)
            self.enter(target)

    def hold_itself(self) -> int:
        """Return an O_PATH descriptor of the file here, even of a link; the caller owns it. Raises OSError."""
        return self._hold(self.name, os.O_NOFOLLOW)

    def open(self, path: str, flags: int, mode: int = 0o600, *, both_ways: bool = True) -> tuple[int, bool]:
        """Return a nonblocking descriptor of `path`, which the caller owns, and whether the file was created.

        With O_CREAT in `flags`, a missing file is created with `mode`, but never behind a link. `both_ways`:
        a FIFO is opened for reading and writing, regardless of `flags`. Raises OSError.
        """
        if flags & os.O_DIRECTORY:
            path += "/"
        if not flags & os.O_CREAT:
            self.enter(path)
            return self._open_found(flags, both_ways), False
        for _ in range(2):
            self.enter(path)
            try:
                return os.open(self.name, flags | ALWAYS | os.O_EXCL, mode, dir_fd=self.folder), True
            except FileExistsError:
                pass
            try:
                return self._open_found(flags & ~os.O_CREAT, both_ways), False
            except FileNotFoundError:
                pass  # removed meanwhile, e.g. by a rotation of logs; or a dangling link
        raise FileNotFoundError(errno.ENOENT, "a symbolic link that leads nowhere")

    def _open_found(self, flags: int, both_ways: bool) -> int:
        """Open the existing file here.

        A FIFO that is opened both ways never waits for its other end, and never fails without a reader. A
        reader then gets no end of file whenever the last writer leaves.
        """
        held = self.hold()  # checked before it is opened, because O_TRUNC would already do harm
        if flags & os.O_PATH:
            return held
        try:
            status = os.fstat(held)
            self.check_hard_links(status)
            if both_ways and stat.S_ISFIFO(status.st_mode):
                flags = os.O_RDWR
            return os.open(f"/proc/self/fd/{held}", flags | ALWAYS)
        finally:
            os.close(held)

    def check_owner(self, status: os.stat_result, name: str) -> None:
        """Raise ForeignFile for a file that another user can have created here under this name."""
        if self.is_foreign(status):
            raise ForeignFile(
                errno.EACCES,
                f"{self._here(name)!r} belongs to uid {status.st_uid}, who can have put it there: "
                "remove it, or choose a directory that other users cannot write to",
            )

    def is_foreign(self, status: os.stat_result) -> bool:
        """Whether a file here belongs to a user who can have created it here, and whose files are not accepted."""
        if self._owners is None or status.st_uid in self._owners:
            return False
        folder = os.fstat(self.folder)
        return _is_shared(folder.st_mode) and status.st_uid != folder.st_uid

    def check_hard_links(self, status: os.stat_result) -> None:
        """Raise UntrustedLink for a file with several names to which another user can have made the link here."""
        if self._follows_all or stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            return
        folder = os.fstat(self.folder)
        if (folder.st_uid != 0 and status.st_uid != folder.st_uid) or (folder.st_uid == 0 and folder.st_mode & 0o022):
            message = f"{self._here(self.name)!r} is a hard link that a user can have made"
            raise UntrustedLink(errno.EPERM, message, self.name)

    def _move(self, name: str, nofollow: int = os.O_NOFOLLOW) -> None:
        # O_DIRECTORY also makes an automounter mount the folder
        fd = self._hold(name, os.O_DIRECTORY | nofollow)
        try:
            status = os.fstat(fd)
            if name not in ("/", ".."):  # these are not entries of the folder
                self.check_owner(status, name)
        except BaseException:
            os.close(fd)
            raise
        os.close(self.folder)
        self.folder = fd
        self.is_ours = self.is_ours and status.st_uid in (0, os.geteuid()) and not _is_replaceable_in(status.st_mode)

    def _hold(self, name: str, flags: int) -> int:
        self._enters(self.folder, name)
        fd = os.open(name, _HOLD | flags, dir_fd=self.folder)
        try:
            self._enters(fd, "")
            if self._shuns_proc and is_proc(fd):
                raise PermissionError(errno.EACCES, "a link of a user leads into /proc")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _follow(self, name: str, rest: str) -> str | None:
        """Return the target of the link `name`, the first name of `rest`.

        None stands for a link that only the kernel can follow, e.g. /proc/self/fd/1. Raises OSError: ENOTDIR
        for anything but a link, ELOOP for too many links, UntrustedLink, ForeignFile.
        """
        link = self._hold(name, os.O_NOFOLLOW)
        try:
            status = os.fstat(link)
            if not stat.S_ISLNK(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self._links_left -= 1
            if self._links_left < 0:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            self.check_owner(status, name)
            if not self._trusts(status):
                message = f"the symbolic link {self._here(name)!r} is not followed: a user can set it"
                raise UntrustedLink(errno.ELOOP, message, rest)
            if is_proc(link):
                return None
            return os.readlink("", dir_fd=link)
        finally:
            os.close(link)

    def _trusts(self, link: os.stat_result) -> bool:
        if self._follows_all:
            return True
        folder = os.fstat(self.folder)
        return link.st_uid == 0 and folder.st_uid == 0 and not _is_replaceable_in(folder.st_mode)

    def _here(self, name: str) -> str:
        try:
            folder = os.readlink(f"/proc/self/fd/{self.folder}")
        except OSError:
            return name  # in a new root, /proc may be missing
        return f"{folder.rstrip('/')}/{name}"


def _is_replaceable_in(mode: int) -> bool:
    """Whether users other than its owner may replace the files of others in a folder."""
    return bool(mode & 0o022) and not mode & stat.S_ISVTX


def _is_shared(mode: int) -> bool:
    """Whether users who do not trust each other may write to a folder, by the rule of protected_regular."""
    return bool(mode & stat.S_IWOTH or (mode & stat.S_IWGRP and mode & stat.S_ISVTX))


class NewFile:
    """A new file in an open folder, which gets its name once it is complete. Owns `fd`, which is open for writing.

    It has no name until then, so a process that is killed leaves nothing behind. Where the file system has no such
    files, or the process no /proc, it has a hidden name, which `close` removes.
    """

    def __init__(self, folder: int) -> None:
        """Make the file, which only its owner can access. Raises OSError."""
        self._folder = folder
        self._hidden = ""
        try:
            self.fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            self._make_hidden()
            return
        if not os.path.exists(self._itself()):
            os.close(self.fd)
            self._make_hidden()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _make_hidden(self) -> None:
        name = _hidden_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.fd = os.open(name, flags, 0o600, dir_fd=self._folder)
        self._hidden = name

    def _itself(self) -> str:
        return f"/proc/self/fd/{self.fd}"

    def give_name(self, name: str) -> None:
        """Give it the name, and so replace a file that has it. Raises OSError."""
        if not self._hidden:
            with suppress(FileExistsError):
                os.link(self._itself(), name, dst_dir_fd=self._folder)
                return
            hidden = _hidden_name()
            os.link(self._itself(), hidden, dst_dir_fd=self._folder)
            self._hidden = hidden
        os.rename(self._hidden, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._hidden = ""

    def close(self) -> None:
        os.close(self.fd)
        if self._hidden:
            with suppress(OSError):
                os.unlink(self._hidden, dir_fd=self._folder)


def _hidden_name() -> str:
    return f".new-{os.urandom(8).hex()}"
