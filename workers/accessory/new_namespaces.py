"""The namespaces that a request adds to a name: made as a whole, or undone."""

from __future__ import annotations

import os
from dataclasses import dataclass

from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER, setns, unshare
from workers.accessory.c_helpers import Init, end_child, hold_child, start_init, start_user_namespace
from workers.accessory.entry import PID_DESCRIPTORS, Entry, UserNamespace, weight
from workers.accessory.protocol import Refused, Request
from workers.accessory.rights import Rights

MAP_FILES = ("setgroups", "uid_map", "gid_map")
_KINDS = {CLONE_NEWIPC: "IPC", CLONE_NEWPID: "PID", CLONE_NEWUSER: "user"}


@dataclass(slots=True)
class NewNamespaces:
    """New namespaces and a new lease for a request. Owns them until the entry takes them over.

    `lease` is the reading end of the pipe, `lease_end` the client's end.
    """

    ipc: int = -1
    init: Init | None = None
    user: UserNamespace | None = None
    lease: int = -1
    lease_end: int = -1

    @property
    def namespaces(self) -> tuple[int, int]:
        """The number of namespaces that they count as, and the number of their descriptors."""
        others, has_init = (self.ipc >= 0) + (self.user is not None), self.init is not None
        extra = self.user.weight - 1 if self.user is not None else 0
        return others + extra + has_init, others + PID_DESCRIPTORS * has_init

    def stored(self) -> list[int]:
        """Return the descriptors to keep in the store."""
        user = self.user.fd if self.user is not None else -1
        return [fd for fd in (self.ipc, user, self.lease) if fd >= 0]

    def discard(self) -> Init | None:
        """Undo everything; the init is killed, and the caller reaps it."""
        for fd in (*self.stored(), *([self.lease_end] if self.lease_end >= 0 else [])):
            os.close(fd)
        if self.init is not None:
            self.init.kill()
        return self.init


def make(new: NewNamespaces, maker: NamespaceMaker, entry: Entry, rights: Rights, request: Request) -> None:
    """Make the namespaces that the entry lacks. Raises Refused; `new` has everything that was made until then."""
    kind = CLONE_NEWIPC
    try:
        if request.ipc and entry.ipc < 0:
            new.ipc = maker.make_ipc()
        kind = CLONE_NEWPID
        if request.pid and entry.init is None:
            new.init = maker.make_pid(entry.name)
        kind = CLONE_NEWUSER
        if request.user is not None and entry.user(rights.uid, request.user) is None:
            new.user = _make_user(maker, rights, request.user)
    except OSError as error:
        where = f" ({error.filename})" if error.filename in MAP_FILES else ""
        raise Refused(f"cannot make {_KINDS[kind]} namespace{where}: {error.strerror or error}") from error
    if request.lease:
        try:
            new.lease, new.lease_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise Refused(f"cannot make lease pipe: {error.strerror}") from error


def _make_user(maker: NamespaceMaker, rights: Rights, payload: bytes) -> UserNamespace:
    maps = rights.maps(payload)
    fd = maker.make_user(rights.uid, rights.gid, maps.uid_map, maps.gid_map, maps.deny_setgroups)
    return UserNamespace(fd, os.fstat(fd).st_ino, rights.uid, payload)


def check_room(entry: Entry, rights: Rights, request: Request, is_new: bool) -> None:
    """Raise Refused if the user has too much already, or if no descriptors are left."""
    namespaces = descriptors = 0
    for is_lacking, number, size in (
        (request.ipc and entry.ipc < 0, 1, 1),
        (request.pid and entry.init is None, 1, PID_DESCRIPTORS),
        (request.user is not None and entry.user(rights.uid, request.user) is None, weight(request.user or b""), 1),
    ):
        if is_lacking:
            namespaces, descriptors = namespaces + number, descriptors + size
    account, is_shared = entry.account, entry.is_shared
    if is_new:
        account.check("names", entry.weight, 0, is_shared=is_shared)
    if namespaces:
        account.check("namespaces", namespaces, descriptors, is_shared=is_shared)
    if request.lease:
        account.check("leases", 1, descriptors + 2, is_shared=is_shared)


class NamespaceMaker:
    """Makes namespaces without leaving the present ones. Owns the descriptor of the IPC namespace to return to.

    Only for a process with one thread: `setns` and `unshare` change the calling thread alone. The caller owns
    new namespaces. The methods raise OSError, and then nothing was made.
    """

    def __init__(self) -> None:
        self._ipc = os.open("/proc/thread-self/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)

    def make_ipc(self) -> int:
        """Make an IPC namespace without any process in it; return its descriptor."""
        unshare(CLONE_NEWIPC)
        try:
            return os.open("/proc/thread-self/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            # otherwise the next child would inherit and hold it
            _return(self._ipc, CLONE_NEWIPC)

    @staticmethod
    def make_pid(name: str) -> Init:
        """Make a PID namespace with its first process, which needs a `go` within some seconds."""
        return hold_child(start_init(name))

    @staticmethod
    def make_user(uid: int, gid: int, uid_map: bytes, gid_map: bytes, deny_setgroups: bool) -> int:
        """Make a user namespace of that user with these maps (none if empty); return its descriptor."""
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
    """Return to a namespace, or end this process, which must not continue in another one."""
    try:
        setns(fd, kind)
    except OSError as error:
        raise SystemExit(f"cannot return to the namespace of this process: {error.strerror}") from error


def _write(pid: int, name: str, text: bytes) -> None:
    """Write a map file of a process: the kernel takes a map in one write or not at all."""
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error
    finally:
        os.close(fd)
