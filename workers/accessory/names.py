"""All names that there are: giving out what is there, making what is not, and giving it up.

What was made is written down before anybody is told of it: first in the log, then in the store.
So the order of things is the same everywhere: make, write down, store, answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from workers.accessory.accounts import Accounts
from workers.accessory.draft import Draft, check_room, make
from workers.accessory.ends import Ends
from workers.accessory.entry import NO_LEASE, PID_DESCRIPTORS, Entry
from workers.accessory.errors import Refused
from workers.accessory.expiry import Expiry
from workers.accessory.holding import hold_soon
from workers.accessory.ledger import Ledger
from workers.accessory.namespaces import NamespaceMaker
from workers.accessory.program import Init, find_init
from workers.accessory.protocol import Request
from workers.accessory.rights import Rights

GRAIN = 60  # a touch is written down once in this part of the time until expiry, at the most
_NOBODY: dict[str, Entry] = {}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a request gets: `handles` stay the entry's, `lease_end` (-1: none was asked for) is the caller's.

    `is_made`: not all of it was there already.
    """

    entry: Entry
    handles: Sequence[int]
    lease_end: int
    is_made: bool


class Names:
    """Owns all entries, which are in `entries` by id.  `loop` has CLOCK_BOOTTIME.

    `leases` are how many are open; `changed` is called when there are more or fewer of anything.
    """

    def __init__(
        self, loop: Loop, accounts: Accounts, ledger: Ledger, entries: dict[int, Entry], expiry: float
    ) -> None:
        self._loop = loop
        self._clock: Callable[[], float] = loop.clock
        self._maker = NamespaceMaker()
        self._accounts = accounts
        self._ledger = ledger
        self._grain = max(1, round(expiry * 1000 / GRAIN))  # milliseconds
        self._until = 0.0
        self._by_id = entries
        self._realms: dict[int, dict[str, Entry]] = {}
        self._next_id = 1
        self.leases = 0
        self.changed: Callable[[], None] = lambda: None
        self.ends = Ends(loop, self._lease_ended, self._init_ended)
        self.expiry = Expiry(loop, expiry, self._expired)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_id.values())

    def fulfil(self, rights: Rights, request: Request) -> Grant:
        """What the request asks for.  Raises Refused, and then everything is as it was before."""
        entry = self._realms.get(rights.realm, _NOBODY).get(request.name)
        is_new = entry is None
        if entry is None:
            now = self._clock()
            entry = Entry(self._next_id, rights.realm, rights.uid, request.name, now, self._noted_until(now))
        if request.pid:
            self.hold(entry)
        lease_end = -1
        is_made = is_new or request.lease or entry.lacks(rights, request)
        if is_made:
            lease_end = self._extend(entry, rights, request, is_new)
        self.touch(entry)
        return Grant(entry, entry.handles(rights, request), lease_end, is_made)

    def touch(self, entry: Entry) -> None:
        """It was asked for now."""
        if entry.held != NO_LEASE:
            return
        now = entry.touched = self._clock()
        if now > entry.noted_until:
            entry.noted_until = self._noted_until(now)
            self._ledger.touched(entry)

    def _noted_until(self, now: float) -> float:
        """The end of the part of time that `now` is in: one and the same number for all names."""
        if now > self._until:
            self._until = (int(now * 1000) // self._grain + 1) * self._grain / 1000
        return self._until

    def adopt(self, entries: Sequence[Entry]) -> None:
        """Go on with the names of an earlier process; their inits are looked for soon, or when they are asked for."""
        for entry in entries:
            self._adopt(entry)
        hold_soon(self._loop, self.hold, [entry for entry in entries if entry.init is not None])

    def _adopt(self, entry: Entry) -> None:
        self._next_id = max(self._next_id, entry.id + 1)
        self._insert(entry)
        number, descriptors = entry.namespaces
        self._accounts.add(entry.payer, "namespaces", number, descriptors)
        self._accounts.add(entry.payer, "leases", len(entry.leases), len(entry.leases))
        self.leases += len(entry.leases)
        for lease in entry.leases:
            self.ends.watch_lease(entry, lease)
        if not entry.is_leased:
            self.expiry.wait(entry)

    def hold(self, entry: Entry) -> None:
        """Look for the init that an earlier process has left it, if that has not been done.

        Raises Refused where it lives and cannot be held, and then it is as before.
        """
        if entry.init is None or entry.init.is_held:
            return
        try:
            init = find_init(entry.init.pid, entry.init.started)
            if init is not None:
                self._watch_found(entry, init)
        except OSError as error:
            raise Refused(f"cannot hold the init of {entry.name!r}: {error.strerror}") from error
        if init is None:
            self._take_init(entry)
            self._ledger.init_gone(entry)

    def _watch_found(self, entry: Entry, init: Init) -> None:
        try:
            self.ends.watch_init(entry, init)
        except OSError:
            init.close()
            raise
        entry.init = init
        init.go()  # it may not have been told yet

    def end_all(self) -> None:
        """End all inits, and with them all processes in their namespaces."""
        for entry in self:
            try:
                self.hold(entry)
            except Refused as error:
                log.error("%s: it is not ended", error)
            else:
                if entry.init is not None:
                    entry.init.kill()

    # making

    def _extend(self, entry: Entry, rights: Rights, request: Request, is_new: bool) -> int:
        check_room(self._accounts, entry, rights, request, is_new)
        draft = Draft()
        try:
            make(draft, self._maker, entry, rights, request)
            self._watch(entry, draft)
            self._ledger.made(entry, draft, is_new)
        except BaseException:
            self._undo(draft)
            raise
        self._take(entry, draft, is_new)
        return draft.lease_end

    def _watch(self, entry: Entry, draft: Draft) -> None:
        try:
            if draft.init is not None:
                self.ends.watch_init(entry, draft.init)
            if draft.lease >= 0:
                self.ends.watch_lease(entry, draft.lease)
        except OSError as error:
            raise Refused(f"cannot watch it: {error.strerror}") from error

    def _undo(self, draft: Draft) -> None:
        if draft.lease >= 0:
            self.ends.unwatch_lease(draft.lease)
        init = draft.discard()
        if init is not None:
            self.ends.end(init)

    def _take(self, entry: Entry, draft: Draft, is_new: bool) -> None:
        """It is written down: from here on nothing can fail."""
        if draft.ipc >= 0:
            entry.ipc = draft.ipc
        if draft.user is not None:
            entry.users += (draft.user,)
        if draft.init is not None:
            entry.init = draft.init
        if draft.lease >= 0:
            entry.add_lease(draft.lease)
            entry.touched = entry.noted_until  # one and the same number for many names
            self.leases += 1
            self._accounts.add(entry.payer, "leases")
        number, descriptors = draft.namespaces
        self._accounts.add(entry.payer, "namespaces", number, descriptors)
        if is_new:
            self._next_id += 1
            self._insert(entry)
        if draft.init is not None:
            draft.init.go()
        if not entry.is_leased:
            self.expiry.wait(entry)
        self.changed()

    def _insert(self, entry: Entry) -> None:
        self._realms.setdefault(entry.realm, {})[entry.name] = entry
        self._by_id[entry.id] = entry
        self._accounts.add(entry.payer, "names", entry.weight, 0)

    # ending

    def _lease_ended(self, entry: Entry, fd: int) -> None:
        os.close(fd)
        entry.end_lease(fd)
        self._accounts.add(entry.payer, "leases", -1, -1)
        self.leases -= 1
        self.changed()
        if not entry.is_leased:
            now = entry.touched = self._clock()
            entry.noted_until = self._noted_until(now)
            self._ledger.touched(entry)
            self.expiry.wait(entry)

    def _init_ended(self, entry: Entry) -> None:
        """The next request makes a new namespace."""
        init = self._take_init(entry)
        if init is not None:
            init.reap()
            init.close()
            self._ledger.init_gone(entry)

    def _take_init(self, entry: Entry) -> Init | None:
        init, entry.init = entry.init, None
        if init is not None:
            entry.forget_answers()
            self._accounts.add(entry.payer, "namespaces", -1, -PID_DESCRIPTORS)
        return init

    def _expired(self, entry: Entry) -> None:
        try:
            self.hold(entry)
        except Refused as error:
            log.error("%s: it does not expire yet", error)
            entry.touched = self._clock()
            self.expiry.wait(entry)
            return
        entry.forget_answers()
        del self._by_id[entry.id]
        realm = self._realms[entry.realm]
        del realm[entry.name]
        if not realm:
            del self._realms[entry.realm]
        if (init := self._take_init(entry)) is not None:
            self.ends.end(init)
        number, descriptors = entry.namespaces
        self._accounts.add(entry.payer, "namespaces", -number, -descriptors)
        self._accounts.add(entry.payer, "names", -entry.weight, 0)
        for fd in entry.stored():
            os.close(fd)
        self._ledger.gone(entry)
        self.changed()
