"""Writing down what there is: first in the log of names, then in spawnd's store.

What a client is to be told of goes through `made`, before it is told.  What makes nothing
worse than a name that lives a little longer is written as it comes, and a failure is only logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from workers.accessory.draft import Draft
from workers.accessory.entry import Entry
from workers.accessory.errors import Refused
from workers.accessory.journal import Journal
from workers.accessory.records import (
    gone_line,
    init_gone_line,
    init_line,
    leased_line,
    name_line,
    read_stored_name,
    stored_name,
    touched_line,
    user_line,
)
from workers.runtime.store import Holdings, StoreClient

JOURNAL = "journal"  # what the log is called in the store


class Ledger:
    """Owns the log.  `entries`, by id, are all that there are: their owner enters them after `made`."""

    def __init__(self, journal: Journal, entries: Mapping[int, Entry], loop: Loop, notify_socket: str) -> None:
        self._journal = journal
        self._entries = entries
        self.store = StoreClient(loop, notify_socket, self._stored_names, self._holdings)

    def keep_journal(self) -> None:
        """Have the log itself in the store."""
        self.store.keep(JOURNAL, [self._journal.fd], polled=False)

    def made(self, entry: Entry, draft: Draft, is_new: bool) -> None:
        """Something has been made, which is not in the entry yet.  Raises Refused, and then nothing is written."""
        lines = name_line(entry.known()) if is_new else b""
        if draft.user is not None:
            lines += user_line(entry.id, draft.user.inode, draft.user.uid, draft.user.payload)
        if draft.init is not None:
            lines += init_line(entry.id, draft.init.pid, draft.init.started)
        if draft.lease >= 0 and not entry.is_leased:
            lines += leased_line(entry.id)
        try:
            self._journal.append(lines)
        except OSError as error:
            raise Refused(f"cannot write it down: {error.strerror}") from error
        # a namespace cannot hang up, whatever is said of it
        fds = draft.stored()
        if fds:
            self.store.keep(stored_name(entry.id), fds, polled=draft.lease >= 0)

    def touched(self, entry: Entry) -> None:
        self._append(touched_line(entry.id, round(entry.noted_until * 1000)))

    def init_gone(self, entry: Entry) -> None:
        self._append(init_gone_line(entry.id))

    def gone(self, entry: Entry) -> None:
        self._append(gone_line(entry.id))
        self.store.drop(stored_name(entry.id))

    def write_anew(self) -> None:
        """Have nothing in the log but what is so now."""
        try:
            self._journal.replace(self._everything())
        except OSError as error:
            log.warning("cannot write the log of names anew: %s", error.strerror)

    def _stored_names(self) -> list[str]:
        return [JOURNAL, *map(stored_name, self._entries)]

    def _holdings(self, name: str) -> Holdings:
        if name == JOURNAL:
            return [([self._journal.fd], False)]
        entry = self._entries.get(read_stored_name(name) or 0)
        return [] if entry is None else [(entry.stored(), False), (list(entry.leases), True)]

    def _append(self, line: bytes) -> None:
        try:
            self._journal.append(line)
        except OSError as error:
            log.warning("cannot write to the log of names: %s", error.strerror)
        if self._journal.is_long:
            self.write_anew()

    def _everything(self) -> Iterator[bytes]:
        return (line for entry in self._entries.values() for line in _lines(entry))


def _lines(entry: Entry) -> Iterator[bytes]:
    known = entry.known()
    yield name_line(known)
    for inode, (uid, payload) in known.users.items():
        yield user_line(entry.id, inode, uid, payload)
    if known.init is not None:
        yield init_line(entry.id, *known.init)
    if known.leased:
        yield leased_line(entry.id)
