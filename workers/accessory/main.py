"""The accessory: assembles its parts from the descriptors that spawnd passed on, and runs.

On TERM it ends all inits; on USR1 it leaves everything to its successor.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from operator import attrgetter
from typing import Any

import setproctitle

from supervisor.log.logger import log, notice, open_log, worker_logs_to_stderr
from supervisor.loop.loop import Clock, Loop
from supervisor.printable import count
from supervisor.varlink.messages import InvalidParameter
from workers.accessory.entry import Accounts, Entry
from workers.accessory.ledger import JOURNAL, Journal, Ledger, LoggedName, read_lines, recover
from workers.accessory.options import Options, parse_options
from workers.accessory.protocol import OptionsError, Refused
from workers.accessory.registry import Registry
from workers.accessory.server import Server
from workers.runtime.control import Control, ControlSocket
from workers.runtime.start import CONTROL, OPTIONS, passed_descriptors, read_options
from workers.runtime.status import StatusLine, feed_watchdog

INTERFACE = os.path.join(os.path.dirname(__file__), "io.spawnd.accessory.varlink")
PAGE = 1000  # names
PAGE_SIZE = 1 << 19  # bytes of rows in one reply, whose limit is 1 MiB

# Seconds since boot including suspensions: this clock outlives the process and cannot be set.
boot_time: Clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h


class Report:
    """Lists names and counts; inits that an earlier process has left are held first."""

    def __init__(self, registry: Registry, server: Server, accounts: Accounts, ledger: Ledger) -> None:
        self._registry = registry
        self._server = server
        self._accounts = accounts
        self._ledger = ledger

    def control(self) -> Control:
        """Return the methods of the control socket."""
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
        with suppress(Refused):  # then its namespace is omitted
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
    """Return the user namespaces of a name that fit into a row: at most half a page."""
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


class Accessory:
    """Owns everything that spawnd passed on."""

    def __init__(self, loop: Loop, fds: dict[str, list[int]], options: Options) -> None:
        self._loop = loop
        listener = _take_listener(fds)
        control = fds.pop(CONTROL, [])
        accounts = Accounts(options.quota, raise_descriptor_limit())
        journals = fds.pop(JOURNAL, [])
        journal, known = _take_journal(journals)
        realms: dict[int, dict[str, Entry]] = {}
        self.ledger = Ledger(journal, realms, loop, os.environ.pop("NOTIFY_SOCKET", ""))
        self.registry = Registry(loop, self.ledger, realms, options.expiry)
        if journals and journals != [journal.fd]:
            self.ledger.store.drop(JOURNAL)  # otherwise the next process would find useless logs again
        self._recover(known, fds, accounts)
        self.server = Server(loop, listener, self.registry, accounts, options)
        # with a name it is busy: leases may end and its time may pass, and no client tells of that
        status = StatusLine(loop, self.ledger.store.say, self.server.status, self.registry.has_names)
        self.registry.changed = self.server.changed = status.changed
        status.changed()
        for fd in control:
            ControlSocket(loop, fd, Report(self.registry, self.server, accounts, self.ledger).control())

    def _recover(self, known: dict[int, LoggedName], stored: dict[str, list[int]], accounts: Accounts) -> None:
        store = self.ledger.store
        entries, unknown = recover(known, stored, accounts, self._loop.clock())
        self.registry.adopt(entries)
        taken = {fd for entry in entries for fd in entry.descriptors()}
        for fd in (fd for fds in stored.values() for fd in fds if fd not in taken):
            os.close(fd)
        for name in unknown:
            store.drop(name)
        self.ledger.write_anew()
        self.ledger.keep_journal()
        if entries:
            notice("going on with %s", count(len(entries), "name"))

    def serve(self) -> None:
        self._loop.on_signal(signal.SIGTERM, self._end)
        self._loop.on_signal(signal.SIGINT, self._end)
        self._loop.on_signal(signal.SIGUSR1, self._hand_over)
        self.ledger.store.say("READY=1")
        feed_watchdog(self._loop, self.ledger.store.say)
        self._loop.run()

    def _end(self) -> None:
        self.registry.end_all()
        self.server.finish()
        self._loop.stop()

    def _hand_over(self) -> None:
        self.server.finish()
        self.ledger.store.finish()
        self._loop.stop()


def _take_listener(fds: dict[str, list[int]]) -> socket.socket:
    """Return the listening socket: the only descriptor of its name, and not from the store."""
    for name, numbers in fds.items():
        if name != CONTROL and len(numbers) == 1 and _listens(numbers[0]):
            del fds[name]
            return socket.socket(fileno=numbers[0])
    raise OptionsError('there is no listening socket among the descriptors: fd = { seqpacket("@cm4all-spawn") }')


def _listens(fd: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def _take_journal(fds: list[int]) -> tuple[Journal, dict[int, LoggedName]]:
    """Return the log of the previous process with its names, or else a new log."""
    journal: Journal | None = None
    known: dict[int, LoggedName] = {}
    for fd in fds:
        try:
            if journal is not None:
                raise ValueError("there are two of them")
            journal, lines = Journal.resume(fd)
        except (OSError, ValueError) as error:
            log.error("cannot use a log of names: %s", error)
            os.close(fd)
            continue
        known, damaged = read_lines(lines)
        if damaged:
            log.error("cannot read %s of the log of names", count(damaged, "line"))
    return journal or Journal.create(), known


def raise_descriptor_limit() -> int:
    """Raise the limit of descriptors as far as the host allows; return it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def main() -> int:
    setproctitle.setproctitle("spawnd: accessory")
    open_log("info", worker_logs_to_stderr())
    fds = passed_descriptors()
    loop = Loop(
        on_error=lambda error: log.error("accessory: unexpected error; going on", exc_info=error), clock=boot_time
    )
    try:
        options = parse_options(read_options(fds.pop(OPTIONS)[0]))
        accessory = Accessory(loop, fds, options)
    except OptionsError as error:
        log.error("accessory: %s", error)
        return EXIT_CONFIG
    gc.freeze()  # all objects stay: a collection would copy pages that are shared with spawnd
    accessory.serve()
    return os.EX_OK
