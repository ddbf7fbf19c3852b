"""The accessory: puts its parts together from the descriptors that spawnd handed over, and runs.

On TERM it ends all inits; on USR1 it leaves everything to its successor.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import time
from functools import partial

import setproctitle

from supervisor.log.logger import log, notice, open_log, worker_logs_to_stderr
from supervisor.loop.loop import Clock, Loop
from supervisor.printable import count
from workers.accessory.entry import Accounts, Entry
from workers.accessory.ledger import JOURNAL, Journal, Ledger
from workers.accessory.options import Options, parse_options
from workers.accessory.protocol import OptionsError
from workers.accessory.recovery import LoggedName, read_lines, recover
from workers.accessory.registry import Registry
from workers.accessory.report import Report
from workers.accessory.server import Server
from workers.runtime.control import ControlSocket
from workers.runtime.descriptors import CONTROL, OPTIONS, passed_descriptors, read_options
from workers.runtime.status import StatusLine, feed_watchdog

# Seconds since boot, suspensions included: this clock outlives the process, and nobody can set it.
boot_time: Clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h


class Accessory:
    """Owns everything that spawnd handed over."""

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
            self.ledger.store.drop(JOURNAL)  # or the next process would find useless logs again
        self._recover(known, fds, accounts)
        self.server = Server(loop, listener, self.registry, accounts, options)
        status = StatusLine(loop, self.ledger.store.say, self.server.status)
        self.registry.changed = self.server.changed = status.changed
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
    """Return the listening socket: the only descriptor of its name, which is none of the store's."""
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
    """Return the log of the process before this one, with its names, or else a new log."""
    journal: Journal | None = None
    known: dict[int, LoggedName] = {}
    for fd in fds:
        try:
            if journal is not None:
                raise ValueError("there are two of them")
            journal, lines = Journal.resume(fd)
        except (OSError, ValueError) as error:
            log.error("a log of names is of no use: %s", error)
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
