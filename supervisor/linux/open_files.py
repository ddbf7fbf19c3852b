"""The identity of a descriptor's open file, in a form that can be stored and found again in another process.

It consists of the kernel's name in `/proc/PID/fd`, e.g. `socket:[4711]`, and the access mode; inode and mount
replace a path, which a file may lose or change: proc_pid_fd(5). No file system is asked, because it may never
answer. No fdinfo is read, because the maker of the descriptor may delay that at will.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from itertools import islice

from supervisor.linux.file_status import inode_and_mount
from supervisor.linux.glance import AT_ONCE, OPEN_FILE, OpenFile, glance, parse_open_file

SOCKET = "socket:"
PIPE = "pipe:"
FILE = "file "  # start of the identity of a file with a path
ANONYMOUS = "anon_inode:"
PIDFD = "anon_inode:[pidfd]"
ACCESS = ("r", "w", "rw", "")  # by O_ACCMODE, because both ends of a pipe have the same name
TOO_LONG = "/"  # only a path is that long: more than 4096 bytes
MOST = 1 << 14  # descriptors of another process that are inspected; it may have any number
LONGEST_LOOK = 0.5  # seconds


def identity(fd: int, process: int | None = None) -> str:
    """Return the identity of the file behind descriptor `fd` of a process, by default this one.

    Raises OSError if there is no such descriptor or process, TimeoutError if the process does not show it.
    """
    if process is not None:
        answer = glance([f"{OPEN_FILE}/proc/{process}/fd/{fd}"])[0]
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer), f"/proc/{process}/fd/{fd}")
        return _of_other(parse_open_file(answer))
    link = f"/proc/self/fd/{fd}"
    name = _name(link)
    if name.startswith(SOCKET):
        return name
    inode = inode_and_mount(link) if name.startswith(("/", PIDFD)) else (0, 0)
    return _identity(name, ACCESS[fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE], *inode)


def _of_other(file: OpenFile) -> str:
    return _identity(file.link or TOO_LONG, _access(file.mode), file.inode, file.mount)


def _identity(name: str, access: str, inode: int, mount: int) -> str:
    if name.startswith(SOCKET):
        return name
    if name.startswith("/"):
        return f"{FILE}{access} inode {inode} mount {mount}"
    if name.startswith(PIDFD):
        return f"{name} {access} inode {inode}"  # of the process, since Linux 6.9
    return f"{name} {access}"


def is_unique(name: str) -> bool:
    """Whether an identity belongs to a single open file; timers and eventfds have no names of their own."""
    return not name.startswith(ANONYMOUS)


def open_files(pid: int) -> dict[str, list[int]]:
    """Return the numbers of process `pid`'s first `MOST` descriptors by identity; none if it is gone.

    The search ends after `LONGEST_LOOK` with the results so far. Raises OSError without a descriptor to look with.
    """
    files = OpenFiles(pid)
    deadline = time.monotonic() + LONGEST_LOOK
    while not files.is_complete and time.monotonic() < deadline:
        files.look()
    return files.found


class OpenFiles:
    """An incremental `open_files`, because a process may have any number of descriptors.

    `found` has the descriptors inspected so far. The search is also complete if the process does not show the others.
    Raises OSError without a descriptor to look with.
    """

    def __init__(self, pid: int) -> None:
        self.found: dict[str, list[int]] = {}
        self._pid = pid
        self._left = _numbers(pid)

    @property
    def is_complete(self) -> bool:
        return not self._left

    def look(self, most: int = AT_ONCE) -> None:
        """Inspect more descriptors, at most `AT_ONCE`."""
        some, self._left = self._left[:most], self._left[most:]
        answers = glance([f"{OPEN_FILE}/proc/{self._pid}/fd/{number}" for number in some])
        if errno.ETIMEDOUT in answers or errno.EBUSY in answers:
            self._left = []
            return
        for number, answer in zip(some, answers, strict=True):
            if isinstance(answer, bytes):  # else it was closed meanwhile
                self.found.setdefault(_of_other(parse_open_file(answer)), []).append(number)


def _numbers(pid: int) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError), os.scandir(f"/proc/{pid}/fd") as entries:
        return [int(entry.name) for entry in islice(entries, MOST)]
    return []


def _name(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return TOO_LONG


def _access(mode: int) -> str:
    """Return the access mode of a descriptor from the permissions of its link; none means O_PATH."""
    may_write = mode & stat.S_IWUSR
    if mode & stat.S_IRUSR:
        return "rw" if may_write else "r"
    return "w" if may_write else "r"
