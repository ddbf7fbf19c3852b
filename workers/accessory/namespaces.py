"""Making namespaces: the caller stays in those where it was.

Only for a process with one thread: what `setns` and `unshare` change is the calling thread's.
"""

from __future__ import annotations

import os

from supervisor.linux.namespaces import CLONE_NEWIPC, setns, unshare
from workers.accessory.program import Init, end_child, hold_child, start_init, start_user_namespace

MAP_FILES = ("setgroups", "uid_map", "gid_map")


class NamespaceMaker:
    """Owns the descriptor of the namespace to which it returns.

    Everything that it makes is the caller's.  Its methods raise OSError, and then nothing was made.
    """

    def __init__(self) -> None:
        self._ipc = os.open("/proc/thread-self/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)

    def make_ipc(self) -> int:
        """A new IPC namespace, without any process in it: its descriptor."""
        unshare(CLONE_NEWIPC)
        try:
            return os.open("/proc/thread-self/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            # else the next child would inherit it, and hold it
            _return(self._ipc, CLONE_NEWIPC)

    @staticmethod
    def make_pid(name: str) -> Init:
        """A new PID namespace with its first process, which has to be told `go` within some seconds."""
        return hold_child(start_init(name))

    @staticmethod
    def make_user(uid: int, gid: int, uid_map: bytes, gid_map: bytes, deny_setgroups: bool) -> int:
        """A new user namespace of that user with these maps (none where empty): its descriptor."""
        pid = start_user_namespace(uid, gid)
        try:
            for name, text in zip(MAP_FILES, (b"deny" if deny_setgroups else b"", uid_map, gid_map), strict=True):
                if text:
                    _write(pid, name, text)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            end_child(pid)

    def close(self) -> None:
        os.close(self._ipc)


def _return(fd: int, kind: int) -> None:
    """Back to where we were.  A process that cannot go back must not go on: it is not what it seems to be."""
    try:
        setns(fd, kind)
    except OSError as error:
        raise SystemExit(f"cannot return to the namespace of this process: {error.strerror}") from error


def _write(pid: int, name: str, text: bytes) -> None:
    """Write such a file of a process: the kernel takes a map in one write or not at all."""
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error
    finally:
        os.close(fd)
