"""All names: handing out namespaces, making missing ones, and giving names up.

The order is the same everywhere: make, write to the log, store, answer. So clients are told of nothing that a
crash of this process would lose.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from workers.accessory.c_helpers import Init, find_init
from workers.accessory.entry import NO_LEASE, PID_DESCRIPTORS, Account, Entry
from workers.accessory.expiry import Expiry, HangupWatch, adopt_inits
from workers.accessory.ledger import Ledger
from workers.accessory.new_namespaces import NamespaceMaker, NewNamespaces, check_room, make
from workers.accessory.protocol import Refused, Request
from workers.accessory.rights import Rights, plain_maps

GRAIN = 60  # touches are written to the log at most once per this fraction of the time until expiry
_NOBODY: dict[str, Entry] = {}


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a request. The entry still owns `handles`, the caller owns `lease_end` (-1: not requested).

    `is_made`: a part of it is new.
    """

    entry: Entry
    handles: Sequence[int]
    lease_end: int
    is_made: bool


class Registry:
    """Owns all entries, which are in `realms` by realm and name. `loop` has CLOCK_BOOTTIME.

    `leases` is the number of open leases. `changed` is called when a number changes.
    """

    def __init__(self, loop: Loop, ledger: Ledger, realms: dict[int, dict[str, Entry]], expiry: float) -> None:
        self._loop = loop
        self._clock: Callable[[], float] = loop.clock
        self._maker = NamespaceMaker()
        self._ledger = ledger
        self._grain = max(1, round(expiry * 1000 / GRAIN))  # milliseconds
        self._until = 0.0
        self._realms = realms
        self._next_id = 1
        self.leases = 0
        self.changed: Callable[[], None] = lambda: None
        self.hangups = HangupWatch(loop, self._lease_ended, self._init_ended)
        self.expiry = Expiry(loop, expiry, self._expired)

    def __len__(self) -> int:
        return sum(map(len, self._realms.values()))

    def has_names(self) -> bool:
        return any(self._realms.values())

    def __iter__(self) -> Iterator[Entry]:
        return (entry for names in self._realms.values() for entry in names.values())

    def fulfil(self, rights: Rights, account: Account, request: Request) -> Grant:
        """Fulfil a client's request; a new name is charged to its `account`.

        Raises Refused, and then everything is as it was before.
        """
        if request.user is not None:
            user = plain_maps(request.user)
            request = Request(request.name, request.ipc, request.pid, user, request.lease)
        entry = self._realms.get(rights.realm, _NOBODY).get(request.name)
        is_new = entry is None
        if entry is None:
            now = self._clock()
            entry = Entry(self._next_id, rights.realm, account, request.name, now, self._end_of_grain(now))
        if request.pid:
            self._hold_living(entry)
        lease_end = -1
        is_made = is_new or request.lease or entry.lacks(rights, request)
        if is_made:
            lease_end = self._extend(entry, rights, request, is_new)
        self.touch(entry)
        return Grant(entry, entry.handles(rights, request), lease_end, is_made)

    def touch(self, entry: Entry) -> None:
        """Note a request for the name in this turn of the loop."""
        if entry.lease != NO_LEASE:
            return
        now = entry.touched = self._loop.woken
        if now > entry.noted_until:
            entry.noted_until = self._end_of_grain(now)
            self._ledger.touched(entry)

    def _end_of_grain(self, now: float) -> float:
        """Return the end of the time span that contains `now`, as the same object for all names."""
        if now > self._until:
            self._until = (int(now * 1000) // self._grain + 1) * self._grain / 1000
        return self._until

    def adopt(self, entries: Sequence[Entry]) -> None:
        """Take over names of an earlier process, which are charged already; their inits are held soon."""
        for entry in entries:
            self._adopt(entry)
        adopt_inits(self._loop, self.hold, [entry for entry in entries if entry.init is not None])

    def _adopt(self, entry: Entry) -> None:
        self._next_id = max(self._next_id, entry.id + 1)
        self._insert(entry)
        number, descriptors = entry.namespaces
        entry.account.charge("namespaces", number, descriptors)
        entry.account.charge("leases", len(entry.leases), len(entry.leases))
        self.leases += len(entry.leases)
        for lease in entry.leases:
            self.hangups.watch_lease(entry, lease)
        if not entry.is_leased:
            self.expiry.wait(entry)

    def hold(self, entry: Entry) -> None:
        """Hold the init that an earlier process has left, unless that has been done.

        Raises Refused if the init lives and cannot be held; then the entry is as before.
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

    def _hold_living(self, entry: Entry) -> None:
        """Hold the init, but give it up if it is ending, so that the request makes a new one. Raises Refused."""
        self.hold(entry)
        if entry.init is not None and entry.init.is_ending and (init := self._take_init(entry)) is not None:
            self.hangups.end(init)
            self._ledger.init_gone(entry)

    def _watch_found(self, entry: Entry, init: Init) -> None:
        try:
            self.hangups.watch_init(entry, init)
        except OSError:
            init.close()
            raise
        entry.init = init
        init.go()  # it may not have been confirmed yet

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
        check_room(entry, rights, request, is_new)
        new = NewNamespaces()
        try:
            make(new, self._maker, entry, rights, request)
            self._watch(entry, new)
            self._ledger.made(entry, new, is_new)
        except BaseException:
            self._undo(new)
            raise
        self._take_over(entry, new, is_new)
        return new.lease_end

    def _watch(self, entry: Entry, new: NewNamespaces) -> None:
        try:
            if new.init is not None:
                self.hangups.watch_init(entry, new.init)
            if new.lease >= 0:
                self.hangups.watch_lease(entry, new.lease)
        except OSError as error:
            raise Refused(f"cannot watch it: {error.strerror}") from error

    def _undo(self, new: NewNamespaces) -> None:
        if new.lease >= 0:
            self.hangups.unwatch_lease(new.lease)
        init = new.discard()
        if init is not None:
            self.hangups.end(init)

    def _take_over(self, entry: Entry, new: NewNamespaces, is_new: bool) -> None:
        """Have the entry own what is written down by now; this cannot fail."""
        if new.ipc >= 0:
            entry.ipc = new.ipc
        if new.user is not None:
            entry.users += (new.user,)
        if new.init is not None:
            entry.init = new.init
        account = entry.account
        if new.lease >= 0:
            entry.add_lease(new.lease)
            entry.touched = entry.noted_until  # the same object for many names
            self.leases += 1
            account.charge("leases")
        number, descriptors = new.namespaces
        account.charge("namespaces", number, descriptors)
        if is_new:
            self._next_id += 1
            account.charge("names", entry.weight, 0)
            self._insert(entry)
        if new.init is not None:
            new.init.go()
        if not entry.is_leased:
            self.expiry.wait(entry)
        self.changed()

    def _insert(self, entry: Entry) -> None:
        self._realms.setdefault(entry.realm, {})[entry.name] = entry

    # ending

    def _lease_ended(self, entry: Entry, fd: int) -> None:
        os.close(fd)
        entry.end_lease(fd)
        entry.account.charge("leases", -1, -1)
        self.leases -= 1
        self.changed()
        if not entry.is_leased:
            now = entry.touched = self._clock()
            entry.noted_until = self._end_of_grain(now)
            self._ledger.touched(entry)
            self.expiry.wait(entry)

    def _init_ended(self, entry: Entry) -> None:
        """Close an init that has ended; the next request makes a new namespace."""
        init = self._take_init(entry)
        if init is not None:
            init.reap()
            init.close()
            self._ledger.init_gone(entry)

    def _take_init(self, entry: Entry) -> Init | None:
        init, entry.init = entry.init, None
        if init is not None:
            entry.forget_answers()
            entry.account.charge("namespaces", -1, -PID_DESCRIPTORS)
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
        names = self._realms[entry.realm]
        del names[entry.name]
        if not names:
            del self._realms[entry.realm]
        if (init := self._take_init(entry)) is not None:
            self.hangups.end(init)
        number, descriptors = entry.namespaces
        entry.account.charge("namespaces", -number, -descriptors)
        entry.account.charge("names", -entry.weight, 0)
        for fd in entry.stored():
            os.close(fd)
        self._ledger.gone(entry)
        self.changed()
