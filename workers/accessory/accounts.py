"""Who has how much: quotas for each user, and the descriptors of this process, which are everybody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from workers.accessory.errors import Refused
from workers.accessory.options import Quota

# What must stay free whatever clients have: what comes along with a datagram, this process's own, and spawnd's, which
# has the same limit and a copy of most descriptors.
RESERVE = 512
# What names and leases leave to connections: who asks for what is there needs nothing else.
CONNECTIONS = 256
PART = 8  # who has names of its own may take one part in so many
KINDS = ("connections", "names", "namespaces", "leases")
_NOTHING = dict.fromkeys(KINDS, 0)


class Accounts:
    """`descriptors` is the limit of this process.  An account is there as long as something is on it.

    Where no quota is set, the users of the shared names may have all that there is, any other a part of it.
    """

    def __init__(self, quota: Quota, descriptors: int) -> None:
        self._quota: Mapping[str, int | None] = asdict(quota)
        self._room = max(descriptors - RESERVE, descriptors // 2)
        self._spare = min(CONNECTIONS, self._room // PART)
        self._taken = 0
        self._accounts: dict[int, dict[str, int]] = {}

    @property
    def descriptors(self) -> tuple[int, int]:
        """How many are taken, and how many there are."""
        return self._taken, self._room

    def used(self) -> Mapping[int, Mapping[str, int]]:
        """By user: how much of each kind."""
        return self._accounts

    def most(self, kind: str, is_shared: bool) -> int:
        """The quota of one user."""
        most = self._quota[kind]
        if most is not None:
            return most
        return self._room if is_shared else self._room // PART

    def check(self, uid: int, kind: str, number: int = 1, descriptors: int = 1, *, is_shared: bool) -> None:
        """Raises Refused where that would be too much."""
        most = self.most(kind, is_shared)
        if self._accounts.get(uid, _NOTHING)[kind] + number > most:
            raise Refused(f"user {uid} has too many {kind}: the quota is {most}")
        if self._taken + descriptors > self._room - (self._spare if kind != "connections" else 0):
            raise Refused("too many open files: no descriptors are left for it")

    def add(self, uid: int, kind: str, number: int = 1, descriptors: int = 1) -> None:
        """Write something on the account, or with negative numbers take it off; `check` is another matter."""
        account = self._accounts.get(uid)
        if account is None:
            account = self._accounts[uid] = _NOTHING.copy()
        account[kind] += number
        self._taken += descriptors
        if not account[kind] and not any(account.values()):
            del self._accounts[uid]
