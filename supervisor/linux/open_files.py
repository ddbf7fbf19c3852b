"""Which open file a descriptor is of, in a form that can be written down and found again in another process.

It is what the kernel calls it in `/proc/PID/fd`, `socket:[4711]` for one, with more where that
names several, and inode and mount in the place of a path, which a file may lose or change:
proc_pid_fd(5), proc_pid_fdinfo(5).  No file system is asked, as one may never answer.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

SOCKET = "socket:"
PIPE = "pipe:"
FILE = "file "  # how the identity of what has a path begins
ANONYMOUS = "anon_inode:"
ACCESS = ("r", "w", "rw", "")  # by O_ACCMODE: the two ends of a pipe have one name
TELLING = ("Pid", "eventfd-id")  # lines of fdinfo that tell one pidfd or eventfd from another


def identity(fd: int, process: int | str = "self") -> str:
    """What descriptor `fd` of a process refers to.  Raises OSError where there is no such descriptor or process."""
    link = f"/proc/{process}/fd/{fd}"
    name = os.readlink(link)
    if name.startswith(SOCKET):
        return name
    if process == "self" and not name.startswith(("/", ANONYMOUS)):
        # a pipe or a namespace: a service may store thousands, and this is ten times as fast
        return f"{name} {ACCESS[fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE]}"
    facts = _facts(f"/proc/{process}/fdinfo/{fd}")
    access = ACCESS[int(facts["flags"], 8) & os.O_ACCMODE]
    if name.startswith("/"):
        # before Linux 5.14 nothing but the file itself tells its inode
        inode = facts.get("ino") or os.stat(link).st_ino
        return f"{FILE}{access} inode {inode} mount {facts['mnt_id']}"
    return " ".join([name, access, *(f"{key}:{facts[key]}" for key in TELLING if key in facts)])


def is_unique(name: str) -> bool:
    """Whether an identity is of one open file: the kernel does not tell one timer or epoll from another."""
    kind = name.removeprefix(ANONYMOUS)
    return kind == name or ":" in kind


def open_files(pid: int) -> dict[str, list[int]]:
    """The numbers of the descriptors of process `pid` by identity; none where it is gone."""
    found: dict[str, list[int]] = {}
    try:
        numbers = sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
    except OSError:
        return found
    for number in numbers:
        with suppress(OSError):  # closed meanwhile
            found.setdefault(identity(number, pid), []).append(number)
    return found


def _facts(path: str) -> dict[str, str]:
    """The lines of an fdinfo file, `KEY:` and a value; the first ones are those that every file has."""
    facts: dict[str, str] = {}
    with open(path, encoding="utf-8", errors="replace") as info:
        for line in info:
            key, _, value = line.partition(":")
            facts.setdefault(key, value.strip())
    return facts
