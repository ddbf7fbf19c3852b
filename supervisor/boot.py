"""From the evaluated definitions, or from an earlier life, to a running supervisor: the parts put together."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import partial

import prctl
import setproctitle

from supervisor.control.server import Server
from supervisor.definitions.service import Definitions
from supervisor.errors import EXIT_CONFIG, EXIT_FAILED, DefinitionsError, SpawnError
from supervisor.linux.open_files import identity
from supervisor.log.logger import log, notice
from supervisor.log.output import JournalOutputs, WorkerOutputs
from supervisor.loop.loop import Loop
from supervisor.manager.depot import Depot
from supervisor.manager.launcher import Host
from supervisor.manager.records import numbers
from supervisor.manager.runtime import RuntimeFolder
from supervisor.manager.scope import Scope
from supervisor.manager.supervisor import Supervisor
from supervisor.manager.systemd import Systemd
from supervisor.notify.foreign import close_foreign
from supervisor.notify.passed import passed_descriptors
from supervisor.notify.sender import Sender
from supervisor.origin import Origin
from supervisor.process.cgroup import Subtree
from supervisor.process.children import REALTIME, Children
from supervisor.process.delegation import find_delegated
from supervisor.process.scheduling import is_spared
from supervisor.process.scope import can_have_scope, scope_name
from supervisor.reexec import Reexec
from supervisor.runtime_folder import SYSTEM_FOLDER
from supervisor.state.file import Record
from supervisor.state.state import State, StateError, read_state


class Boot:
    """Puts the supervisor together.  `status` is the exit status once the loop ends."""

    def __init__(self, loop: Loop, children: Children, runtime: RuntimeFolder, origin: Origin) -> None:
        self.status = 0
        self._loop = loop
        self._children = children
        self._runtime = runtime
        self._origin = origin
        self._systemd = Systemd.from_environment(loop)
        self._scope: Scope | None = None
        self._supervisor: Supervisor
        self._server: Server | None = None
        self._reexec = Reexec(loop, children, origin.program, self._records, lambda: runtime.lock, self._about_to)
        prctl.set_child_subreaper(1)
        setproctitle.setproctitle("spawnd")

    # the first life

    def start(self, result: Definitions | DefinitionsError) -> None:
        """Start what the definitions say, or end the loop with what is wrong."""
        self._guard(partial(self._begin, result))

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except DefinitionsError as error:
            for problem in error.problems:
                log.error("%s", problem)
            self._give_up(EXIT_FAILED if error.passing else EXIT_CONFIG)
        except SpawnError as error:
            log.error("%s", error)
            self._give_up(EXIT_FAILED)
        except Exception:
            # half a supervisor is worse than none: whoever started it sees that it ended
            log.exception("cannot start: unexpected error")
            self._give_up(EXIT_FAILED)

    def _give_up(self, status: int) -> None:
        self.status = status
        self._loop.stop()

    def _begin(self, result: Definitions | DefinitionsError) -> None:
        """First the place where services live, which systemd may have to make."""
        kept = read_kept(self._runtime.state)
        if isinstance(result, Definitions):
            settings = result.settings
        elif kept is not None:
            settings = kept.settings_in_force()
        else:
            raise result
        if settings.cgroup or not can_have_scope():
            self._start(result, kept, find_delegated(settings.cgroup))
        else:
            self._scope = self._make_scope()
            self._scope.open(lambda subtree: self._guard(partial(self._start, result, kept, subtree)))

    def _make_scope(self) -> Scope:
        folder = os.path.realpath(self._runtime.path)
        return Scope(self._loop, scope_name(folder, SYSTEM_FOLDER), folder)

    def _start(self, result: Definitions | DefinitionsError, kept: State | None, subtree: Subtree | None) -> None:
        passed = {identity(fd): (name, fd) for name, fd in passed_descriptors()}
        self._make(subtree, JournalOutputs.available(), {known: name for known, (name, _fd) in passed.items()})
        self._server = Server(self._loop, self._supervisor, self._runtime.control)
        self._take_signals(self._supervisor)
        pool = {known: fd for known, (_name, fd) in passed.items()}
        self._supervisor.boot(result, kept, pool)
        close_foreign(pool.values())  # nobody wants these any more
        pool.clear()
        self._host.depot.settle()
        self._systemd.ready()

    def _make(self, subtree: Subtree | None, journal: bool, kept_by_systemd: dict[str, str]) -> None:
        self._host = Host(
            is_root=os.geteuid() == 0,
            nofile_soft=self._origin.nofile_soft,
            runtime=self._runtime,
            outputs=JournalOutputs() if journal else WorkerOutputs(self._loop),
            subtree=subtree,
            depot=Depot(self._loop, Sender(self._systemd.address), kept_by_systemd),
            scope=self._scope,
            spared=is_spared(),
        )
        self._supervisor = Supervisor(
            self._loop,
            self._children,
            self._host,
            self._origin.paths,
            self._origin.level,
            self._systemd,
            self._reexec.begin,
            self._loop.stop,
        )
        self._reexec.supervisor = self._supervisor

    def _take_signals(self, supervisor: Supervisor) -> None:
        on_signal = self._loop.on_signal
        on_signal(signal.SIGTERM, supervisor.shut_down)
        on_signal(signal.SIGINT, supervisor.shut_down)
        on_signal(signal.SIGHUP, supervisor.reload_definitions)
        on_signal(signal.SIGUSR1, partial(self._reexec.begin, lambda problem: None))  # it is in the log
        on_signal(signal.SIGUSR2, supervisor.log_states)
        for signum in REALTIME:
            on_signal(signum, partial(supervisor.realtime, signum))

    def close(self) -> None:
        """End what control clients there are, and what was prepared for services that never came."""
        if self._server is not None:
            self._server.close()
        if self._scope is not None:
            self._scope.abandon()
        self._systemd.close()

    # the next life

    def _records(self) -> tuple[list[Record], Iterable[int]]:
        """All that the next life of this process needs to know, and the descriptors that it needs."""
        assert self._server is not None
        records = self._supervisor.everything()
        server, supervisor = self._server.kept(), self._supervisor.kept()
        kept = {
            "origin": asdict(self._origin),
            "folder": self._runtime.path,
            "lock": self._runtime.lock,
            "subtree": None if self._host.subtree is None else self._host.subtree.path,
            "journal": isinstance(self._host.outputs, JournalOutputs),
            "scope": self._scope is not None,
            "depot": self._host.depot.names,
            "server": server,
            "supervisor": supervisor,
        }
        fds = {server["listener"], *(record["fd"] for record in server["connections"])}
        if supervisor["feed"] is not None:
            fds.add(supervisor["feed"])
        for record in records:
            fds |= numbers(record.get("unit", {})) | {fd for _name, _polled, fd, _identity in record.get("stored", ())}
        return [*records, {"exec": kept}], fds

    def _about_to(self, leave: bool) -> None:
        """Tell systemd that this process becomes another program, or that it does not after all."""
        if leave:
            self._systemd.reloading()
            os.environ |= self._systemd.environment()
        else:
            for name in self._systemd.environment():
                del os.environ[name]
            self._systemd.ready()

    def resume(self, state: State) -> None:
        """Be what this process was; nothing is done yet.  Raises whatever this version cannot understand."""
        kept = state.exec
        subtree = Subtree(kept["subtree"]) if kept["subtree"] is not None else None
        if kept["scope"]:
            self._scope = self._make_scope()
        self._make(subtree, kept["journal"], kept["depot"])
        self._supervisor.resume(state, kept["supervisor"])
        self._server = Server(self._loop, self._supervisor, self._runtime.control, kept["server"])

    def go_on(self, state: State) -> None:
        """After `resume`: act again."""
        close_left(state)
        self._take_signals(self._supervisor)
        self._loop.give_signals(state.signals)
        self._supervisor.go_on(state.exec["supervisor"])
        self._host.depot.settle()
        if self._scope is not None and self._host.subtree is not None:
            self._scope.resume(self._host.subtree)
        self._systemd.ready()
        notice("executed anew: %d services go on", len(self._supervisor.units))


def close_left(state: State) -> None:
    """Close what came over the exec and nobody has taken in."""
    for record in state.units.values():
        for fd in numbers(record):
            with suppress(OSError):  # closed as it was taken in
                if os.get_inheritable(fd):
                    os.close(fd)


def read_kept(path: str) -> State | None:
    """What an earlier spawnd wrote down; None where there is nothing to go on with."""
    try:
        with open(path, "rb") as file:
            state = read_state(file.read())
    except FileNotFoundError:
        return None
    except (OSError, StateError) as error:
        notice("state in %s is not used: %s", path, error)
        return None
    if state.damaged:
        log.error("%s: %d lines cannot be read and are ignored", path, state.damaged)
    return state
