"""Sessions: the sessions of services that have a process for each connection. Kill: send a signal to one of them.

Denied: the addresses that traps deny. Forgive: let some of them in again.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Collection
from itertools import islice

from supervisor.control.core import Core, Unit
from supervisor.control.errors import InvalidParameter
from supervisor.control.orders import (
    ALL,
    find,
    iso_8601,
    leaders,
    log_order,
    reply_results,
    resolve,
    seconds,
    sessions_of,
)
from supervisor.control.verbs.signal import HIGHEST
from supervisor.lifecycle.transaction import Outcome
from supervisor.printable import listed
from supervisor.process.children import signal_name
from supervisor.process.leftovers import family, kill_processes
from supervisor.process.pids import Process, look_at_all, read_processes, signal_processes
from supervisor.varlink.messages import Failed, Parameters
from supervisor.varlink.pending_call import PendingCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from supervisor.launch.session_table import Peer, Session

LOOKS = 256  # processes that are read in a turn of the loop
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    wanted = parameters.strings("names", [])
    parameters.end()
    names = resolve(wanted, core.manager.units) if wanted else core.manager.units
    try:
        look = Look(pending, {name: sessions_of(core.manager.units[name]) for name in names})
    except OSError as error:
        raise Failed(f"cannot look at the sessions: {error.strerror}") from error
    look.go_on()


def kill(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    unit = find(parameters.string("name"), core.manager.units)
    wanted = parameters.string("session")
    signum = parameters.integer("signal", 1, HIGHEST, int(unit.service.stop_signal))
    parameters.end()
    log_order(pending, [unit.name], f"session {wanted!r} by {signal_name(signum)}")
    reply_results(pending, core, [(unit.name, _kill(unit, wanted, signum))])


def _kill(unit: Unit, wanted: str, signum: int) -> Outcome:
    """Send a signal to all processes of the session with this pid or peer, if there is only one."""
    if unit.service.accept is None and unit.session_table is None:
        return Outcome(False, "it has no sessions: its definition has no `accept`")
    try:
        named = {each.pid: each for each in sessions_of(unit) if wanted in (str(each.pid), str(each.peer))}
        found = {process.pid: process.started for process in leaders(read_processes(named), named)}
        if len(found) > 1:
            return Outcome(False, f"several of its sessions have that peer, name one: {listed([*map(str, found)])}")
        if not found:
            return Outcome(False, f"it has no session {wanted!r}: `spawnctl sessions {unit.name}` shows them")
        if signum == signal.SIGKILL:
            kill_processes(found)
        else:
            signal_processes(family(found, look_at_all()), signum)
    except OSError as error:
        return Outcome(False, f"cannot signal the session: {error.strerror}")
    (pid,) = found
    return Outcome(True, f"{signal_name(signum)} sent to session {pid} of {named[pid].peer}")


def denied(pending: PendingCall, core: Core) -> None:
    Parameters(pending.call.parameters).end()
    now = time.time()
    rows = [
        {"address": address, "until": None, "left_s": None}
        if left == math.inf
        else {"address": address, "until": iso_8601(now + left), "left_s": seconds(left)}
        for address, left in sorted(_denied(core).items())
    ]
    pending.reply({"denied": rows})


def forgive(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    wanted = parameters.strings("addresses")
    parameters.end()
    if not wanted:
        raise InvalidParameter("addresses")
    log_order(pending, wanted)
    found = _denied(core)
    addresses = list(found) if wanted == [ALL] else list(dict.fromkeys(wanted))
    pending.reply({"results": [_forgive(core, address, found) for address in addresses]})


def _denied(core: Core) -> dict[str, float]:
    from supervisor.launch.session_table import read_denied  # most hosts have no trap

    try:
        return read_denied(core.denied)
    except OSError as error:
        raise Failed(f"cannot read {core.denied!r}: {error.strerror}") from error


def _forgive(core: Core, wanted: str, found: Collection[str]) -> dict[str, object]:
    from supervisor.launch.session_table import denied_network, forgive

    address, ok = wanted, False
    try:
        address = denied_network(wanted)
        ok = address in found and forgive(core.denied, address)
        message = "is let in again" if ok else "is not denied: `spawnctl sessions --denied` shows those that are"
    except ValueError:
        message = "is no address, like 192.0.2.7 or 2001:db8::/64"
    except OSError as error:
        message = f"cannot be forgiven: {error.strerror}"
    return {"address": address, "ok": ok, "message": message}


class Look:
    """A look at the processes of sessions, some in each turn of the loop; replies with the sessions that live.

    `sessions` are those in the tables, by service. The memory and CPU time of a session are those of all processes
    that have not left it.
    """

    def __init__(self, pending: PendingCall, sessions: dict[str, list[Session]]) -> None:
        self._pending = pending
        self._sessions = sessions
        self._known = {session.pid: session for found in sessions.values() for session in found}
        self._left = iter([int(entry) for entry in os.listdir("/proc") if entry.isdigit()] if self._known else ())
        self._members: dict[int, list[Process]] = {}

    def go_on(self) -> None:
        if self._pending.ended:
            return
        some = list(islice(self._left, LOOKS))
        for process in read_processes(some):
            if process.session in self._known and process.state not in "ZX":
                self._members.setdefault(process.session, []).append(process)
        if some:
            self._pending.loop.call_soon(self.go_on)
        else:
            self._reply()

    def _reply(self) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        rows = [
            self._row(name, session, now)
            for name, found in self._sessions.items()
            for session in sorted(found, key=lambda session: (session.earliest, session.pid))
            if leaders(self._members.get(session.pid, ()), {session.pid: session})
        ]
        self._pending.reply({"sessions": rows})

    def _row(self, name: str, session: Session, now: float) -> dict[str, object]:
        # an older process has been in a session that had the number before
        members = [each for each in self._members[session.pid] if each.started >= session.earliest]
        return {
            "name": name,
            "pid": session.pid,
            "since": iso_8601(session.since),
            "age_s": seconds(now - session.latest / TICKS),
            "peer": str(session.peer),
            **_client(session.peer),
            "processes": len(members),
            "memory_bytes": sum(each.pages for each in members) * PAGE,
            "cpu_s": sum(each.ticks for each in members) / TICKS,
        }


def _client(peer: Peer) -> dict[str, object]:
    if peer.address:
        return {"address": peer.address, "port": peer.port, "uid": None, "client_pid": None}
    is_known = peer.uid or peer.pid
    uid, pid = (peer.uid, peer.pid) if is_known else (None, None)
    return {"address": None, "port": None, "uid": uid, "client_pid": pid}
