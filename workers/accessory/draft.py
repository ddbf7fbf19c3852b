"""What a request adds to a name: made as a whole, or undone."""

from __future__ import annotations

import os
from dataclasses import dataclass

from supervisor.linux.namespaces import CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER
from workers.accessory.accounts import Accounts
from workers.accessory.entry import PID_DESCRIPTORS, Entry, UserNamespace
from workers.accessory.errors import Refused
from workers.accessory.namespaces import MAP_FILES, NamespaceMaker
from workers.accessory.program import Init
from workers.accessory.protocol import Request
from workers.accessory.rights import SHARED, Rights

_KINDS = {CLONE_NEWIPC: "IPC", CLONE_NEWPID: "PID", CLONE_NEWUSER: "user"}


@dataclass(slots=True)
class Draft:
    """Owns what was made, until it is taken.  `lease` is the end to read, `lease_end` the client's."""

    ipc: int = -1
    init: Init | None = None
    user: UserNamespace | None = None
    lease: int = -1
    lease_end: int = -1

    @property
    def namespaces(self) -> tuple[int, int]:
        """How many, and how many descriptors they take."""
        others = (self.ipc >= 0) + (self.user is not None)
        return others + (self.init is not None), others + PID_DESCRIPTORS * (self.init is not None)

    def stored(self) -> list[int]:
        """What is to be kept in the store."""
        user = self.user.fd if self.user is not None else -1
        return [fd for fd in (self.ipc, user, self.lease) if fd >= 0]

    def discard(self) -> Init | None:
        """Undo everything; the init is killed, and the caller's, to be reaped."""
        for fd in (*self.stored(), *([self.lease_end] if self.lease_end >= 0 else [])):
            os.close(fd)
        if self.init is not None:
            self.init.kill()
        return self.init


def make(draft: Draft, maker: NamespaceMaker, entry: Entry, rights: Rights, request: Request) -> None:
    """Make what the entry lacks.  Raises Refused; what was made by then is in the draft."""
    kind = CLONE_NEWIPC
    try:
        if request.ipc and entry.ipc < 0:
            draft.ipc = maker.make_ipc()
        kind = CLONE_NEWPID
        if request.pid and entry.init is None:
            draft.init = maker.make_pid(entry.name)
        kind = CLONE_NEWUSER
        if request.user is not None and entry.user(rights.uid, request.user) is None:
            draft.user = _make_user(maker, rights, request.user)
    except OSError as error:
        where = f" ({error.filename})" if error.filename in MAP_FILES else ""
        raise Refused(f"cannot make {_KINDS[kind]} namespace{where}: {error.strerror or error}") from error
    if request.lease:
        try:
            draft.lease, draft.lease_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise Refused(f"cannot make lease pipe: {error.strerror}") from error


def _make_user(maker: NamespaceMaker, rights: Rights, payload: bytes) -> UserNamespace:
    maps = rights.maps(payload)
    fd = maker.make_user(rights.uid, rights.gid, maps.uid_map, maps.gid_map, maps.deny_setgroups)
    return UserNamespace(fd, os.fstat(fd).st_ino, rights.uid, payload)


def check_room(accounts: Accounts, entry: Entry, rights: Rights, request: Request, is_new: bool) -> None:
    """Raises Refused where the payer has too much already, or no descriptors are left for all of it."""
    namespaces = descriptors = 0
    for is_lacking, size in (
        (request.ipc and entry.ipc < 0, 1),
        (request.pid and entry.init is None, PID_DESCRIPTORS),
        (request.user is not None and entry.user(rights.uid, request.user) is None, 1),
    ):
        if is_lacking:
            namespaces, descriptors = namespaces + 1, descriptors + size
    is_shared = entry.realm == SHARED
    if is_new:
        accounts.check(entry.payer, "names", entry.weight, 0, is_shared=is_shared)
    if namespaces:
        accounts.check(entry.payer, "namespaces", namespaces, descriptors, is_shared=is_shared)
    if request.lease:
        accounts.check(entry.payer, "leases", 1, descriptors + 2, is_shared=is_shared)
