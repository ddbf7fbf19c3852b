"""Answers to `spawnctl call accessory`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from supervisor.varlink.messages import InvalidParameter
from workers.accessory.entry import Accounts, Entry
from workers.accessory.ledger import Ledger
from workers.accessory.protocol import Refused
from workers.accessory.registry import Registry
from workers.accessory.server import Server
from workers.runtime.control import Control

INTERFACE = os.path.join(os.path.dirname(__file__), "io.spawnd.accessory.varlink")
PAGE = 1000  # names
PAGE_SIZE = 1 << 19  # bytes of rows in one reply, which has 1 MiB


class Report:
    """Lists names, and counts; an init that an earlier process has left is looked for first."""

    def __init__(self, registry: Registry, server: Server, accounts: Accounts, ledger: Ledger) -> None:
        self._registry = registry
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
        found = [entry for entry in self._registry if entry.name.startswith(prefix)]
        found.sort(key=attrgetter("id"))
        rows: list[dict[str, Any]] = []
        size = 0
        for entry in found[offset : offset + min(limit, PAGE)]:
            row = self._row(entry)
            size += len(json.dumps(row))
            if rows and size > PAGE_SIZE:
                break
            rows.append(row)
        after = offset + len(rows)
        return {"names": rows, "next": after if after < len(found) else None}

    def _row(self, entry: Entry) -> dict[str, Any]:
        with suppress(Refused):  # then its namespace is left out
            self._registry.hold(entry)
        init = entry.init
        users = _first_users(entry)
        return {
            "name": entry.name,
            "owner": entry.account.uid,
            "shared": entry.is_shared,
            "ipc": os.fstat(entry.ipc).st_ino if entry.ipc >= 0 else None,
            "pid": os.fstat(init.fd).st_ino if init is not None and init.is_held else None,
            "init": init.pid if init is not None else None,
            "users": users,
            "users_left_out": len(entry.users) - len(users),
            "leases": len(entry.leases),
            "expires_s": None if entry.is_leased else round(self._registry.expiry.left(entry), 3),
        }

    def _counters(self, _parameters: dict[str, Any]) -> Mapping[str, object]:
        taken, room = self._accounts.descriptors
        return {
            "names": len(self._registry),
            "leases": self._registry.leases,
            "clients": self._server.clients,
            "descriptors": taken,
            "descriptors_max": room,
            "stored": not self._ledger.store.is_behind,
            "users": [{"uid": uid, **account.used} for uid, account in sorted(self._accounts.by_uid.items())],
            **asdict(self._server.counters),
        }


def _first_users(entry: Entry) -> list[dict[str, object]]:
    """Return the user namespaces of a name, as many as there is room for in a row: at most half a page."""
    users: list[dict[str, object]] = []
    size = 0
    for user in entry.users:
        maps = user.payload.decode("ascii", "backslashreplace")
        users.append({"uid": user.uid, "inode": user.inode, "maps": maps})
        size += len(json.dumps(users[-1]))
        if size > PAGE_SIZE // 2:
            users.pop()
            break
    return users
