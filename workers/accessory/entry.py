"""What there is under one name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from workers.accessory.program import Init
from workers.accessory.protocol import Request
from workers.accessory.records import Known
from workers.accessory.rights import Rights

PID_DESCRIPTORS = 2  # the namespace and the pidfd of its init
NO_LEASE = -1
NAME_UNIT = 256  # bytes of a name that count as one name
Answers = dict[bytes, Any]


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """One for each owner and payload."""

    fd: int
    inode: int
    uid: int
    payload: bytes


class Entry:
    """A name with its namespaces and the reading ends of its leases, whose descriptors it owns.

    `touched` is when it was asked for, or its last lease ended, and of no meaning while it is leased;
    what is written down is `noted_until`, as late as that may be.  `payer` is the user on whose account
    it is.  `answers` are the datagrams that are answered with what is here, and the table of answers
    where each is.  `held` is the descriptor of its lease, which nearly all names have one of, or all of them.
    """

    __slots__ = (
        "answers", "held", "id", "init", "ipc", "name", "noted_until", "payer", "realm", "touched", "users", "waits",
    )  # fmt: skip

    def __init__(self, id: int, realm: int, payer: int, name: str, touched: float, noted_until: float) -> None:
        self.id = id
        self.realm = realm
        self.payer = payer
        self.name = name
        self.touched = touched
        self.noted_until = noted_until
        self.ipc = -1
        self.init: Init | None = None
        self.users: tuple[UserNamespace, ...] = ()
        self.held: int | set[int] = NO_LEASE
        self.answers: tuple[tuple[Answers, bytes], ...] = ()
        self.waits = False  # whether its expiry is looked at

    @property
    def weight(self) -> int:
        """As how many names it counts."""
        return 1 + len(self.name) // NAME_UNIT

    @property
    def is_leased(self) -> bool:
        return self.held != NO_LEASE

    @property
    def leases(self) -> Collection[int]:
        """The descriptors of all leases."""
        if isinstance(self.held, set):
            return self.held
        return (self.held,) if self.is_leased else ()

    def add_lease(self, fd: int) -> None:
        if isinstance(self.held, set):
            self.held.add(fd)
        else:
            self.held = {self.held, fd} if self.is_leased else fd

    def end_lease(self, fd: int) -> None:
        if isinstance(self.held, set):
            self.held.remove(fd)
        if not isinstance(self.held, set) or not self.held:
            self.held = NO_LEASE

    def user(self, uid: int, payload: bytes) -> UserNamespace | None:
        return next((user for user in self.users if user.payload == payload and user.uid == uid), None)

    def lacks(self, rights: Rights, request: Request) -> bool:
        """Whether a namespace has to be made for a request."""
        return (
            (request.ipc and self.ipc < 0)
            or (request.pid and self.init is None)
            or (request.user is not None and self.user(rights.uid, request.user) is None)
        )

    def handles(self, rights: Rights, request: Request) -> list[int]:
        """The descriptors that answer a request, in the order of the reply; they stay the entry's."""
        fds = []
        if request.ipc:
            fds.append(self.ipc)
        if request.pid and self.init is not None:
            fds.append(self.init.fd)
        if request.user is not None and (user := self.user(rights.uid, request.user)) is not None:
            fds.append(user.fd)
        return fds

    def stored(self) -> Sequence[int]:
        """The namespaces that are kept in the store: a PID namespace lives by its init."""
        return [*([self.ipc] if self.ipc >= 0 else []), *(user.fd for user in self.users)]

    @property
    def namespaces(self) -> tuple[int, int]:
        """How many there are, and how many descriptors they take."""
        others = (self.ipc >= 0) + len(self.users)
        return others + (self.init is not None), others + PID_DESCRIPTORS * (self.init is not None)

    def known(self) -> Known:
        """It, as it is written down."""
        users = {user.inode: (user.uid, user.payload) for user in self.users}
        init = None if self.init is None else (self.init.pid, self.init.started)
        noted = round(self.noted_until * 1000)
        return Known(self.id, self.realm, self.payer, noted, self.name, users, init, self.is_leased)

    def descriptors(self) -> Sequence[int]:
        """All that are open for it, but those of its init."""
        return [*self.stored(), *self.leases]

    def forget_answers(self) -> None:
        answers, self.answers = self.answers, ()
        for table, datagram in answers:
            table.pop(datagram, None)
