"""Putting the supervisor together, from evaluated definitions or from the state before an exec."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import partial

import prctl
import setproctitle

from supervisor.control.server import OWNER_MODE, Server
from supervisor.definitions.service import Definitions
from supervisor.errors import EXIT_CONFIG, EXIT_FAILED, DefinitionsError, RuntimeFolderError, SpawnError, is_shortage
from supervisor.launch.program import Program
from supervisor.linux import pipe_call
from supervisor.linux.credentials import join_session_keyring
from supervisor.linux.open_files import identity
from supervisor.linux.signal_mask import ignored
from supervisor.log.logger import log, notice
from supervisor.log.output import JournalOutputs, WorkerOutputs
from supervisor.loop.loop import Loop
from supervisor.manager.host import HostFacts
from supervisor.manager.runtime import FolderWatch, RuntimeFolder
from supervisor.manager.supervisor import Supervisor
from supervisor.notify.safe_close import Closer
from supervisor.notify.service_side import Sender, passed_descriptors
from supervisor.origin import Origin
from supervisor.places import SYSTEM_FOLDER
from supervisor.printable import count, encodable
from supervisor.process.cgroup import Subtree, find_delegated
from supervisor.process.children import REALTIME, Children
from supervisor.process.launch_plan import is_spared
from supervisor.state.state import Record, State, StateError, read_state
from supervisor.systemd.reports import Systemd, SystemdStore
from supervisor.systemd.scope import Scope, can_have_scope, scope_name
from supervisor.takeover.after_exec import numbers
from supervisor.takeover.reexec import Reexec


class Boot:
    """Assembles the supervisor. `status` is the exit status once the loop ends."""

    def __init__(self, loop: Loop, children: Children, runtime: RuntimeFolder, origin: Origin) -> None:
        self.status = 0
        time.tzset()  # the C library reads the time zone now, and no file later
        pipe_call.reserve()
        self._program = Program()
        self._program.reserve()
        self._loop = loop
        self._children = children
        self._runtime = runtime
        self._origin = origin
        self._systemd = Systemd.from_environment(loop)
        self._scope: Scope | None = None
        self._supervisor: Supervisor
        self._server: Server | None = None  # for all users
        self._folder_watch: FolderWatch | None = None
        self._owner_server: Server | None = None  # for root and spawnd's own user
        self._reexec = Reexec(loop, children, origin.program, self._records, lambda: runtime.lock, self._about_to)
        prctl.set_child_subreaper(1)
        _show_as(f"spawnd {runtime.path}")

    # a first start

    def start(self, result: Definitions | DefinitionsError) -> None:
        """Start services by the definitions, or end the loop with the error."""
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
        except Exception as error:
            if is_shortage(error):
                log.error("cannot start now: %s%s", error, NOFILE if getattr(error, "errno", 0) == errno.EMFILE else "")
                self._give_up(EXIT_FAILED)
                return
            # half a supervisor is worse than none, and its parent notices an exit
            log.exception("cannot start: unexpected error")
            self._give_up(EXIT_FAILED)

    def _give_up(self, status: int) -> None:
        self.status = status
        self._loop.stop()

    def _begin(self, result: Definitions | DefinitionsError) -> None:
        """Get the cgroup for services first, which systemd may have to make."""
        saved = read_saved(self._runtime.state)
        if isinstance(result, Definitions):
            settings = result.settings
        elif saved is not None:
            settings = saved.settings_in_force()
        else:
            raise result
        if settings.cgroup or not can_have_scope():
            self._start(result, saved, find_delegated(settings.cgroup))
        else:
            self._scope = self._make_scope()
            self._scope.open(lambda subtree: self._guard(partial(self._start, result, saved, subtree)))

    def _make_scope(self) -> Scope:
        folder = os.path.realpath(self._runtime.path)
        return Scope(self._loop, scope_name(folder, SYSTEM_FOLDER), folder)

    def _start(self, result: Definitions | DefinitionsError, saved: State | None, subtree: Subtree | None) -> None:
        passed = {identity(fd): (name, fd) for name, fd in passed_descriptors()}
        in_systemd_store = {known: name for known, (name, _fd) in passed.items()}
        self._make(subtree, JournalOutputs.available(), in_systemd_store, _join_keyring())
        self._server = self._make_server(None)
        self._owner_server = self._make_owner_server(None)
        self._watch_folder()
        self._take_signals(self._supervisor)
        pool = {known: fd for known, (_name, fd) in passed.items()}
        self._supervisor.boot(result, saved, pool)
        self._host.closer.close(pool.values())  # no service has claimed these
        pool.clear()
        self._host.systemd_store.drop_unwanted()
        self._systemd.ready()

    def _make_server(self, saved: Record | None) -> Server:
        return Server(self._loop, self._supervisor, self._runtime.control, self._children.when_reaped, saved)

    def _watch_folder(self) -> None:
        self._folder_watch = FolderWatch(self._loop, self._runtime, self._remade, self._supervisor.find_removed)

    def _remade(self) -> None:
        """Bind the sockets and write the state in the run-time folder, which was made anew."""
        for server in (self._server, self._owner_server):
            if server is not None:
                server.look_again()
        self._supervisor.look_again()

    def _make_owner_server(self, saved: Record | None) -> Server:
        path, when_reaped = self._runtime.owner_control, self._children.when_reaped
        return Server(self._loop, self._supervisor, path, when_reaped, saved, OWNER_MODE)

    def _make(
        self, subtree: Subtree | None, journal: bool, in_systemd_store: dict[str, str], has_keyring: bool
    ) -> None:
        closer = Closer(self._loop, self._children.when_reaped)
        closer.file_systems.open()  # so that spawnd has the same descriptors before and after an exec
        self._host = HostFacts(
            is_root=os.geteuid() == 0,
            nofile_soft=self._origin.nofile_soft,
            ignored=ignored(),
            runtime=self._runtime,
            outputs=JournalOutputs(closer.close) if journal else WorkerOutputs(self._loop, closer.close),
            subtree=subtree,
            systemd_store=SystemdStore(self._loop, Sender(self._systemd.address), in_systemd_store),
            closer=closer,
            program=self._program,
            scope=self._scope,
            spared=is_spared(),
            has_keyring=has_keyring,
            stderr_is_open=self._origin.stderr_is_open,
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
        self._supervisor.when_ending = self._end_watches
        self._reexec.supervisor = self._supervisor

    def _take_signals(self, supervisor: Supervisor) -> None:
        on_signal = self._loop.on_signal
        on_signal(signal.SIGTERM, supervisor.shut_down)
        on_signal(signal.SIGINT, supervisor.shut_down)
        on_signal(signal.SIGHUP, supervisor.changes.reload)
        on_signal(signal.SIGUSR1, partial(self._reexec.begin, lambda problem: None))  # the problem is logged elsewhere
        on_signal(signal.SIGUSR2, supervisor.log_states)
        for signum in REALTIME:
            on_signal(signum, partial(supervisor.realtime, signum))

    def _end_watches(self) -> None:
        if self._folder_watch is not None:
            self._folder_watch.end()
        for server in (self._server, self._owner_server):
            if server is not None:
                server.end_watch()

    def close(self) -> None:
        """Disconnect control clients, and remove what was prepared for services that never started."""
        if self._folder_watch is not None:
            self._folder_watch.close()
        for server in (self._server, self._owner_server):
            if server is not None:
                server.close()
        if self._scope is not None:
            self._scope.abandon()
        self._systemd.close()

    # an exec

    def _records(self) -> tuple[list[Record], Iterable[int]]:
        """Return the state that this process needs after an exec, and its descriptors."""
        assert self._server is not None
        records = list(self._supervisor.writer.everything())
        server = self._server.saved()
        owner_server = None if self._owner_server is None else self._owner_server.saved()
        supervisor = self._supervisor.saved()
        saved = {
            "origin": asdict(self._origin),
            "folder": self._runtime.path,
            "lock": self._runtime.lock,
            "subtree": None if self._host.subtree is None else self._host.subtree.path,
            "journal": isinstance(self._host.outputs, JournalOutputs),
            "scope": self._scope is not None,
            "keyring": self._host.has_keyring,
            "depot": self._host.systemd_store.names,
            "server": server,
            "owner_server": owner_server,
            "supervisor": supervisor,
        }
        fds = set()
        for each in filter(None, (server, owner_server)):
            fds |= {each["listener"], *(record["fd"] for record in each["connections"])}
        if supervisor["feed"] is not None:
            fds.add(supervisor["feed"])
        for record in records:
            fds |= numbers(record.get("unit", {})) | {fd for _name, _polled, fd, _identity in record.get("stored", ())}
        return [*records, {"exec": saved}], fds

    def _about_to(self, leave: bool) -> None:
        """Report to systemd that this process is about to exec, or that the exec has failed."""
        if leave:
            self._systemd.reloading()
            os.environ |= self._systemd.environment()
        else:
            for name in self._systemd.environment():
                del os.environ[name]
            self._systemd.ready()

    def rebuild(self, state: State) -> None:
        """Restore the state from before the exec; nothing is started yet.

        Raises any exception caused by a state that this version does not understand.
        """
        saved = state.exec
        subtree = Subtree(saved["subtree"]) if saved["subtree"] is not None else None
        if saved["scope"]:
            self._scope = self._make_scope()
        # made up for if an earlier version has started without one
        has_keyring = saved["keyring"] if "keyring" in saved else _join_keyring()
        self._make(subtree, saved["journal"], saved["depot"], has_keyring)
        self._supervisor.rebuild(state, saved["supervisor"])
        self._server = self._make_server(saved["server"])
        if saved.get("owner_server") is not None:
            self._owner_server = self._make_owner_server(saved["owner_server"])

    def activate(self, state: State) -> None:
        """Resume work after `rebuild`."""
        close_left(state)
        self._take_signals(self._supervisor)
        self._loop.give_signals(state.signals)
        self._supervisor.activate(state.exec["supervisor"])
        if self._owner_server is None:  # an earlier version had no such socket
            try:
                self._owner_server = self._make_owner_server(None)
            except RuntimeFolderError as error:
                log.error("%s", error)
        self._watch_folder()
        if self._scope is not None and self._host.subtree is not None:
            self._scope.take_over(self._host.subtree)
        self._systemd.ready()
        notice("executed anew, with %s", count(len(self._supervisor.manager.units), "service"))


def _join_keyring() -> bool:
    """Leave the session keyring of spawnd's parent, whose keys are not for services; return whether that succeeded."""
    try:
        join_session_keyring()
    except OSError as error:
        log.warning("cannot make a session keyring: %s; services share the one spawnd was started with", error.strerror)
        return False
    return True


NOFILE = "; raise the limit of open files (`LimitNOFILE=` in its unit, `ulimit -n` in a shell)"


def _show_as(title: str) -> None:
    """Set the title that `ps` shows, which identifies the instance.

    The name for `pgrep -x` and `killall` is the program's.
    """
    setproctitle.setproctitle(encodable(title))
    prctl.set_name("spawnd")


def close_left(state: State) -> None:
    """Close descriptors that came over the exec and were not taken over."""
    for record in state.units.values():
        for fd in numbers(record):
            with suppress(OSError):  # it was closed while it was taken over
                if os.get_inheritable(fd):
                    os.close(fd)


def read_saved(path: str) -> State | None:
    """Return the state that an earlier spawnd has written; None if there is nothing to continue."""
    try:
        with open(path, "rb") as file:
            state = read_state(file.read())
    except FileNotFoundError:
        return None
    except (OSError, StateError) as error:
        notice("state in %s is not used: %s", path, error)
        return None
    if state.damaged:
        log.error("%s: %s cannot be read, ignored", path, count(state.damaged, "line"))
    return state
