"""Methods of the reaper's control socket: io.spawnd.reaper.varlink."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from supervisor.varlink.interface import read_description
from supervisor.varlink.messages import MAX_REPLY, ControlError, Failed
from workers.reaper.accounting.query import make_query, number
from workers.reaper.options import DatabaseError
from workers.runtime.async_control import AsyncControl

if TYPE_CHECKING:
    from workers.reaper.accounting.writer import AccountingWriter
    from workers.reaper.reaper import Reaper

INTERFACE = "io.spawnd.reaper"
LIMIT = 1000  # cgroups in one reply
MAX_LIMIT = 5000
REPLY_ROOM = MAX_REPLY - (1 << 10)  # bytes of a list in a reply


def reaper_control(reaper: Reaper) -> AsyncControl:
    methods = {
        "Status": lambda _parameters: status(reaper),
        "Cgroups": lambda parameters: cgroups(reaper, parameters),
        "Totals": lambda parameters: totals(reaper.accounting, parameters),
    }
    return AsyncControl("reaper", read_description(os.path.dirname(__file__), INTERFACE), methods)


def status(reaper: Reaper) -> Mapping[str, object]:
    members = reaper.tree.members()
    present = reaper.tree.present()
    of_scope = Counter(node.scope for node in members)
    return {
        "scopes": [
            {"path": path, "present": path in present, "cgroups": of_scope[path]} for path in reaper.tree.scopes.paths
        ],
        "cgroups": len(members),
        "watches": len(reaper.tree.watches),
        "polled": reaper.tree.unwatched,
        "overflows": reaper.tree.overflows,
        "empty": reaper.releases.waiting,
        "crowded": len(reaper.releases.queue),
        "handlers": reaper.reports.running,
        "waiting": reaper.reports.waiting,
        "counters": asdict(reaper.releases.counters),
        "accounting": None if reaper.accounting is None else accounting(reaper.accounting, reaper.options.database),
    }


def accounting(writer: AccountingWriter, database: str) -> Mapping[str, object]:
    spool = writer.spool
    return {
        "database": database if database.startswith("sqlite:") else "postgresql",  # it may contain a password
        "kept": writer.kept,
        "refused": writer.refused,
        "trouble": writer.trouble or None,
        "spool": {
            "bytes": spool.size,
            "batches": len(spool.batches),
            "in_memory": len(spool.in_memory),
            "lost": spool.lost,
        },
    }


def cgroups(reaper: Reaper, parameters: Mapping[str, Any]) -> Mapping[str, object]:
    limit = number(parameters, "limit", LIMIT, MAX_LIMIT)
    below = (parameters["below"] or "").rstrip("/")
    after = parameters["after"] or ""
    found = [node for node in reaper.tree.members() if node.path > after and f"{node.path}/".startswith(f"{below}/")]
    found.sort(key=lambda node: node.path)
    listed: list[Mapping[str, object]] = []
    room = REPLY_ROOM
    for node in found[:limit]:
        row = {"path": node.path, "used": node.used, "empty": node.release is not None}
        room -= len(json.dumps(row))
        if room < 0:
            break
        listed.append(row)
    return {"cgroups": listed, "more": len(found) > len(listed)}


async def totals(writer: AccountingWriter | None, parameters: Mapping[str, Any]) -> Mapping[str, object]:
    if writer is None:
        raise ControlError(f"{INTERFACE}.NoDatabase")
    try:
        found = await writer.database.totals(make_query(parameters))
    except DatabaseError as error:
        raise Failed(str(error)) from error
    return found.reply()
