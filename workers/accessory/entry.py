"""A name with its namespaces and leases, the account that it is charged to, and cached answers to requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from typing import Any

from workers.accessory.c_helpers import Init
from workers.accessory.options import Quota
from workers.accessory.protocol import Refused, Request
from workers.accessory.rights import SHARED, Rights
from workers.runtime.store import Holdings

PID_DESCRIPTORS = 2  # the namespace and the pidfd of its init
NO_LEASE = -1
NAME_UNIT = 256  # bytes of a name, or of the maps of a user namespace, that count as one more
MOST_ANSWERS = 1024
LONGEST = 512  # bytes of a datagram whose answer is cached
# Descriptors that stay free whatever clients hold: for descriptors that arrive with a datagram, for this
# process itself, and for spawnd, which has the same limit and a copy of most descriptors.
RESERVE = 512
# Descriptors that names and leases leave to connections: a request for existing namespaces needs nothing else.
CONNECTIONS = 256
PART = 8  # a user with own names may take one of so many parts
KINDS = ("connections", "names", "namespaces", "leases")


def weight(text: Sized) -> int:
    """Return the number of names that a name counts as, or the number for a user namespace with such maps."""
    return 1 + len(text) // NAME_UNIT


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """A user namespace; there is one for each owner and payload, which has the form of `plain_maps`."""

    fd: int
    inode: int
    uid: int
    payload: bytes

    @property
    def weight(self) -> int:
        """The number of namespaces that it counts as."""
        return weight(self.payload)


class Accounts:
    """The accounts of all users, which share the descriptors of this process; `descriptors` is its limit.

    Without a quota, a user of the shared names may take all descriptors, any other user a part.
    """

    def __init__(self, quota: Quota, descriptors: int) -> None:
        self.quota: Mapping[str, int | None] = asdict(quota)
        self.room = max(descriptors - RESERVE, descriptors // 2)
        self.spare = min(CONNECTIONS, self.room // PART)
        self.taken = 0
        self.by_uid: dict[int, Account] = {}

    def of(self, uid: int) -> Account:
        """Return the account of a user; the first charge registers a new one."""
        return self.by_uid.get(uid) or Account(self, uid)

    @property
    def descriptors(self) -> tuple[int, int]:
        """The number of descriptors taken, and the limit."""
        return self.taken, self.room


class Account:
    """Counts of one user's possessions, by kind; the account stays open while one of them is not zero.

    Between `Accounts.of` and the first charge there must be no other `of` for the same user.
    """

    __slots__ = ("_all", "uid", "used")

    def __init__(self, accounts: Accounts, uid: int) -> None:
        self._all = accounts
        self.uid = uid
        self.used = dict.fromkeys(KINDS, 0)

    def check(self, kind: str, number: int = 1, descriptors: int = 1, *, is_shared: bool) -> None:
        """Raise Refused if a charge would exceed the quota, or if no descriptors are left for it."""
        accounts = self._all
        most = accounts.quota[kind]
        if most is None:
            most = accounts.room if is_shared else accounts.room // PART
        if self.used[kind] + number > most:
            raise Refused(f"user {self.uid} has too many {kind}: the quota is {most}")
        if accounts.taken + descriptors > accounts.room - (accounts.spare if kind != "connections" else 0):
            raise Refused("too many open files: no descriptors are left for it")

    def charge(self, kind: str, number: int = 1, descriptors: int = 1) -> None:
        """Charge something to the account, or refund it with negative numbers; `check` is a separate call."""
        used = self.used
        used[kind] += number
        self._all.taken += descriptors
        if used[kind] or any(used.values()):
            self._all.by_uid[self.uid] = self
        else:
            self._all.by_uid.pop(self.uid, None)


class Entry:
    """A name with its namespaces and the reading ends of its leases, whose descriptors it owns.

    All of it is charged to `account`. `touched` is the time of the last request or of the end of the last
    lease; it has no meaning while the name is leased. The log has `noted_until`, the end of the time span
    that contains `touched`. `lease` is the descriptor of the only lease, or the set of several. `answers` are
    the datagrams with a cached answer, each with the table that contains it.
    """

    __slots__ = (
        "account", "answers", "id", "init", "ipc", "lease", "name", "noted_until", "realm", "touched", "users", "waits",
    )  # fmt: skip

    def __init__(self, id: int, realm: int, account: Account, name: str, touched: float, noted_until: float) -> None:
        self.id = id
        self.realm = realm
        self.account = account
        self.name = name
        self.touched = touched
        self.noted_until = noted_until
        self.ipc = -1
        self.init: Init | None = None
        self.users: tuple[UserNamespace, ...] = ()
        self.lease: int | set[int] = NO_LEASE
        self.answers: tuple[tuple[Answers, bytes], ...] = ()
        self.waits = False  # for its turn in `Expiry`

    @property
    def is_shared(self) -> bool:
        return self.realm == SHARED

    @property
    def weight(self) -> int:
        """The number of names that it counts as."""
        return weight(self.name)

    @property
    def is_leased(self) -> bool:
        return self.lease != NO_LEASE

    @property
    def leases(self) -> Collection[int]:
        """The descriptors of all leases."""
        if isinstance(self.lease, set):
            return self.lease
        return (self.lease,) if self.is_leased else ()

    def add_lease(self, fd: int) -> None:
        if isinstance(self.lease, set):
            self.lease.add(fd)
        else:
            self.lease = {self.lease, fd} if self.is_leased else fd

    def end_lease(self, fd: int) -> None:
        if isinstance(self.lease, set):
            self.lease.remove(fd)
        if not isinstance(self.lease, set) or not self.lease:
            self.lease = NO_LEASE

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
        """Return the descriptors that answer a request, in the order of the reply; the entry still owns them."""
        fds = []
        if request.ipc:
            fds.append(self.ipc)
        if request.pid and self.init is not None:
            fds.append(self.init.fd)
        if request.user is not None and (user := self.user(rights.uid, request.user)) is not None:
            fds.append(user.fd)
        return fds

    def stored(self) -> Sequence[int]:
        """Return the namespaces to keep in the store; a PID namespace is not stored, as its init keeps it alive."""
        return [*([self.ipc] if self.ipc >= 0 else []), *(user.fd for user in self.users)]

    @property
    def namespaces(self) -> tuple[int, int]:
        """The number of namespaces that they count as, and the number of their descriptors."""
        others, has_init = (self.ipc >= 0) + len(self.users), self.init is not None
        extra = sum(user.weight - 1 for user in self.users)
        return others + extra + has_init, others + PID_DESCRIPTORS * has_init

    def holdings(self) -> Holdings:
        """Return the desired content of spawnd's store: namespaces, and leases, which it drops as they hang up."""
        return [(self.stored(), False), (list(self.leases), True)]

    def descriptors(self) -> Sequence[int]:
        """Return all descriptors but those of the init."""
        return [*self.stored(), *self.leases]

    def forget_answers(self) -> None:
        answers, self.answers = self.answers, ()
        for table, datagram in answers:
            table.pop(datagram, None)


# the entry, the reply, and its descriptors in the format of sendmsg
Answer = tuple[Entry, list[bytes], list[tuple[int, int, Any]]]
Answers = dict[bytes, Answer]


class AnswerCache:
    """The rights of some clients, and answers to their requests that can be repeated without further checks.

    `answers` are by datagram. Answers with a PID namespace are kept apart, because its init has to be checked.
    """

    __slots__ = ("_with_init", "answers", "rights")

    def __init__(self, rights: Rights) -> None:
        self.rights = rights
        self.answers: Answers = {}
        self._with_init: Answers = {}

    def answer_with_init(self, datagram: bytes) -> Answer | None:
        """Return the answer to a request for a PID namespace; None if there is none, or if the init is ending."""
        answer = self._with_init.get(datagram)
        if answer is None:
            return None
        init = answer[0].init
        return None if init is None or init.is_ending else answer

    def remember(self, datagram: bytes, answer: Answer, has_init: bool = False) -> None:
        """Cache the answer to this datagram as long as everything in it lives."""
        if len(datagram) > LONGEST:
            return
        table = self._with_init if has_init else self.answers
        if len(table) >= MOST_ANSWERS:
            _forget(table, next(iter(table)))
        table[datagram] = answer
        answer[0].answers += ((table, datagram),)


def _forget(table: Answers, datagram: bytes) -> None:
    entry = table.pop(datagram)[0]
    entry.answers = tuple(known for known in entry.answers if known[0] is not table or known[1] != datagram)
