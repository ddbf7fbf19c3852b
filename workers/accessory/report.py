"""What `spawnctl call accessory` tells."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from supervisor.varlink.errors import InvalidParameter
from workers.accessory.accounts import Accounts
from workers.accessory.entry import Entry
from workers.accessory.errors import Refused
from workers.accessory.ledger import Ledger
from workers.accessory.names import Names
from workers.accessory.rights import SHARED
from workers.accessory.server import Server
from workers.runtime.control import Control

INTERFACE = os.path.join(os.path.dirname(__file__), "io.spawnd.accessory.varlink")
PAGE = 1000  # names
PAGE_SIZE = 1 << 18  # characters of names and maps in one reply, which has 1 MiB


class Report:
    """Tells what there is; an init that an earlier process has left is looked for first."""

    def __init__(self, names: Names, server: Server, accounts: Accounts, ledger: Ledger) -> None:
        self._names = names
        self._server = server
        self._accounts = accounts
        self._ledger = ledger

    def control(self) -> Control:
        """The methods of the control socket."""
        methods = {"List": self._list, "Counters": self._counters}
        with open(INTERFACE, encoding="ascii") as interface:
            return Control("accessory", interface.read(), methods)

    def _list(self, parameters: dict[str, Any]) -> Mapping[str, object]:
        prefix, offset, limit = parameters["prefix"] or "", parameters["offset"] or 0, parameters["limit"] or PAGE
        if offset < 0:
            raise InvalidParameter("offset")
        if limit < 0:
            raise InvalidParameter("limit")
        found = [entry for entry in self._names if entry.name.startswith(prefix)]
        rows: list[dict[str, Any]] = []
        size = 0
        for entry in found[offset : offset + min(limit, PAGE)]:
            rows.append(self._row(entry))
            size += len(entry.name) + sum(len(user.payload) for user in entry.users)
            if size > PAGE_SIZE:
                break
        after = offset + len(rows)
        return {"names": rows, "next": after if after < len(found) else None}

    def _row(self, entry: Entry) -> dict[str, Any]:
        with suppress(Refused):  # then its namespace cannot be told
            self._names.hold(entry)
        init = entry.init
        return {
            "name": entry.name,
            "owner": entry.payer,
            "shared": entry.realm == SHARED,
            "ipc": os.fstat(entry.ipc).st_ino if entry.ipc >= 0 else None,
            "pid": os.fstat(init.fd).st_ino if init is not None and init.is_held else None,
            "init": init.pid if init is not None else None,
            "users": [
                {"uid": user.uid, "inode": user.inode, "maps": user.payload.decode("ascii", "backslashreplace")}
                for user in entry.users
            ],
            "leases": len(entry.leases),
            "expires_s": None if entry.is_leased else round(self._names.expiry.left(entry), 3),
        }

    def _counters(self, _parameters: dict[str, Any]) -> Mapping[str, object]:
        taken, room = self._accounts.descriptors
        return {
            "names": len(self._names),
            "leases": self._names.leases,
            "clients": self._server.clients,
            "descriptors": taken,
            "descriptors_max": room,
            "stored": not self._ledger.store.is_behind,
            "users": [{"uid": uid, **used} for uid, used in sorted(self._accounts.used().items())],
            **asdict(self._server.counters),
        }
