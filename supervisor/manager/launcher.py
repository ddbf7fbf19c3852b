"""Starting a process of a unit: open missing descriptors, fork, register."""

from __future__ import annotations

import errno
import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socketpair  # that of `socket` makes two more objects
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from select import EPOLLIN

from supervisor.definitions.service import FIRST, STDIO, Accept, Service, Slot
from supervisor.errors import StepError
from supervisor.launch.program import Arrival
from supervisor.lifecycle.life import Step
from supervisor.log.logger import LOG_VARIABLE, TO_SYSLOG, log, notice
from supervisor.loop.loop import Loop
from supervisor.manager import functions
from supervisor.manager.functions import Sources
from supervisor.manager.host import HostFacts
from supervisor.manager.kin import session_table_of
from supervisor.manager.unit import SESSIONS, Unit
from supervisor.manager.worker import OPTIONS, ForkServers, load_shared, load_worker, options_file, worker_command
from supervisor.notify.receiver import Receiver
from supervisor.notify.service_side import LAST_VARIABLE
from supervisor.process import child
from supervisor.process.cgroup import SESSIONS as OF_SESSIONS
from supervisor.process.children import Child, Children
from supervisor.process.failure import failed, step
from supervisor.process.files import rights_of
from supervisor.process.fork import fork
from supervisor.process.fork_server import ForkServer
from supervisor.process.held_descriptors import NULL_PATH, is_null, open_elsewhere
from supervisor.process.launch import Launch, Source, acceptor_options
from supervisor.process.launch_plan import Plans, as_acceptor, descriptors, make_plan, session_plan
from supervisor.process.network_namespace import namespace_of_name
from supervisor.process.pids import clock_ticks, start_time_since
from supervisor.process.pipes import LONGEST_REST, REST, Pipes
from supervisor.process.run import Role, Run, open_answer
from supervisor.process.sockets import is_bound

READ_PAUSE = 0.1  # seconds until a notification is tried again for which no child could be started
# seconds of a turn from which on a service rests after its notifications; its senders wait in their queue meanwhile
LONG_TURN = 0.002
MakePlan = Callable[[Launch, Arrival, bool], bytes]
Begun = Callable[[Run | StepError], None]  # gets a process that was forked later, or the failure
KEPT = ""  # the name of a descriptor that an acceptor does not use
LOG_FD = 2  # spawnd's own stderr, which workers share


class Launcher:
    """Starts the processes of units; `pipes` reads and closes the pipe ends of a `Run`.

    `plans` are those of services that restart. `on_notification(unit)` is called when the unit's notification
    socket is readable.
    """

    def __init__(
        self, loop: Loop, children: Children, host: HostFacts, sources: Sources, on_notification: Callable[[Unit], None]
    ) -> None:
        self._loop = loop
        self.children = children
        self._host = host
        self._sources = sources
        self.outputs = host.outputs
        self.pipes = Pipes(loop, host.closer)
        self.plans = Plans()
        self._fork_server = ForkServer(loop, children, functions.load)
        self._fork_servers = ForkServers(loop, children)
        self._on_notification = on_notification
        self._told: set[str] = set()

    @property
    def is_forking(self) -> bool:
        """Whether a fork server has an order without an answer."""
        return self._fork_server.is_busy or self._fork_servers.are_busy

    def launch(self, unit: Unit, owner: Child, begun: Begun, looks: bool = True) -> Run | None:
        """Start the unit's main process. Raises StepError, and then no process was started.

        Return None where a fork server starts it: the loop calls `begun`.

        `looks`: the process ends before it becomes the service if a path of the table leads elsewhere by now.
        """
        self.prepare(unit)
        service = unit.service
        # before the process enters it: a service whose name changes hands meanwhile is displaced, and restarted
        netns = namespace_of_name(service.netns) if service.netns else None
        with ExitStack() as theirs, ExitStack() as ours:
            ready_fd, ready = -1, None
            if service.ready == "fd" and service.ready_fd is not None:
                ready_fd, write_end = _pipe(ours, theirs)
                ready = (service.ready_fd, write_end)
            error_fd, write_end = _pair(ours, theirs)
            launch = self._main(unit, self._launch(unit, write_end, looks)._replace(ready=ready), theirs)
            since = clock_ticks()
            if launch.worker and self._fork_servers.takes(launch):
                forked = partial(self._forked, Run(0, Role.MAIN, error_fd, netns=netns), since, owner, begun)
                self._fork_servers.fork(launch, error_fd, forked)
                ours.pop_all()
                return None
            # the log worker unblocks signals itself
            make = self.plans.plan if unit.life.restarts else make_plan
            pid = self._start(launch, owner, error_fd, hears=unit.feed is None, make=make)
            ours.pop_all()
        return Run(pid, Role.MAIN, error_fd, ready_fd, started=start_time_since(since, pid), netns=netns)

    def _main(self, unit: Unit, launch: Launch, theirs: ExitStack) -> Launch:
        """Return the launch of the unit's main process."""
        service = unit.service
        # the log worker gives up root, so it must not have spawnd's memory with the secrets of all definitions
        apart = self._host.is_root and (service.uid != 0 or unit.feed is not None)
        launch = launch._replace(
            argv=worker_command(service.worker) if service.worker else (service.exec, *service.arg),
            argv0=service.argv0,
            fds=self._descriptors(unit, theirs),
            notify_socket=unit.receiver.path if unit.receiver is not None else "",
            watchdog_usec=round((service.watchdog or 0) * 1_000_000),
            emptied=unit.table.emptied(),
            rewound=unit.table.rewound(),
            worker=bool(service.worker) and not apart,
        )
        return self._as_acceptor(unit, launch, theirs)

    def _forked(self, run: Run, since: int, owner: Child, begun: Begun, result: int | StepError) -> None:
        """Pass on the answer of a fork server; `run` has everything but the process."""
        if isinstance(result, StepError):
            run.close()
            begun(result)
            return
        self.children.register(result, owner)
        run.pid, run.started = result, start_time_since(since, result)
        begun(run)

    def _as_acceptor(self, unit: Unit, launch: Launch, theirs: ExitStack) -> Launch:
        """Return the launch of the acceptor of a service with `accept`, and any other launch unchanged."""
        service, accept = unit.service, unit.service.accept
        if accept is None:
            return launch
        from supervisor.launch.acceptor import sealed  # most hosts have no acceptor

        with step("set up the acceptor of", service.name):
            sources = self._sources_of_acceptor(unit, accept, theirs)
            first = FIRST + 1 + len(service.fd)
            last = first + len(sources)
            numbers = {name: number for number, name in enumerate(sources, first) if name != KEPT}
            limits = self._limits_of_sessions(unit)
            made = acceptor_options(service, accept, numbers, tuple(range(FIRST + 1, first)), limits)
            options = sealed("options", made)
            theirs.callback(os.close, options)
            program = self._host.program.acceptor()
        table = (NULL_PATH, *(fd for _, fd in self._table(unit)), *sources.values(), options, program)
        return launch._replace(
            argv=(f"spawnd: acceptor of {service.name}", str(last)),
            service=as_acceptor(service),
            stdio=(NULL_PATH, *launch.stdio[1:]),
            fds=tuple(("", source) for source in table),
            acceptor=last + 1,
        )

    def _limits_of_sessions(self, unit: Unit) -> dict[str, str]:
        if unit.cgroup is None or not unit.service.has_session_cgroups:
            return {}
        limits, notices = unit.cgroup.limit_sessions(unit.service.resources)
        self.tell(f"{unit.name}: {sentence}" for sentence in notices)
        return limits

    def _sources_of_acceptor(self, unit: Unit, accept: Accept, theirs: ExitStack) -> dict[str, Source]:
        """Return what an acceptor gets beside its listening sockets, by the names in its options. Raises OSError.

        A file that may hang is opened by the process that becomes the acceptor.
        """
        from supervisor.launch.acceptor import sealed
        from supervisor.launch.session_table import open_denied

        table = session_table_of(unit)
        # the acceptor closes its table once it has mapped it; the second descriptor is for a spawnd after a loss
        sources: dict[str, Source] = {"table": table, KEPT: table}
        plan = session_plan(unit.service, self._host.nofile_soft)
        makers: dict[str, Callable[[], int]] = {
            "plan": partial(sealed, "plan", plan),
            "processes": partial(os.open, "/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
            "denied": partial(open_denied, self._host.runtime.denied, accept.trap),
        }
        if accept.memory_min is not None:
            makers["memory"] = partial(os.open, "/proc/meminfo", os.O_RDONLY | os.O_CLOEXEC)
        if unit.cgroup is not None and accept.session_cgroup:
            path = f"{unit.cgroup.path}/{OF_SESSIONS}"
            makers["sessions"] = partial(os.open, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name, make in makers.items():
            sources[name] = fd = make()
            theirs.callback(os.close, fd)
        files = {"banner": accept.banner, "refused_banner": accept.banner_refused}
        return sources | {name: path for name, path in files.items() if path}

    def check(self, unit: Unit, owner: Child, looks: bool = False) -> Run:
        """Start the unit's check command, as its user and with its descriptor table. Raises StepError.

        spawnd gets those outputs of the command for which the definition has no destination. `looks` as in `launch`.
        """
        self.prepare(unit)
        with ExitStack() as theirs, ExitStack() as ours:
            error_fd, error_end = _pair(ours, theirs)
            output_fd, output_end = _pipe(ours, theirs)
            stdin, *outputs = self._stdio(unit)
            stdout, stderr = (output_end if source == NULL_PATH else source for source in outputs)
            launch = self._launch(unit, error_end, looks)._replace(
                stdio=(stdin, stdout, stderr), fds=tuple(self._table(unit))
            )
            begun = clock_ticks()
            pid = self._start(launch, owner, error_fd)
            ours.pop_all()
        return Run(pid, Role.CHECK, error_fd, started=start_time_since(begun, pid), output_fd=output_fd)

    def call(self, unit: Unit, function: Role, owner: Child, begun: Begun, looks: bool = False) -> Run | None:
        """Call a function of the unit in a separate process. Raises StepError. `begun`, `looks` as in `launch`."""
        self.prepare(unit)
        with ExitStack() as theirs, ExitStack() as ours:
            text = self._text(unit.service, function)
            shared = len(text) >= functions.SHARED
            service = functions.as_called(unit.service)
            apart = self._host.is_root and service.uid != 0
            order_text = None if shared and not apart else text
            fds = self._function_descriptors(unit, function, order_text, theirs)
            error_fd, write_end = _pair(ours, theirs)
            output = self._output(unit)
            launch = self._launch(unit, write_end, looks)._replace(
                argv=worker_command(functions.WORKER),
                service=service,
                stdio=(NULL_PATH, output, output),
                fds=fds,
                worker=not apart,
            )
            since = clock_ticks()
            if not apart:
                child.send_plan(error_fd, launch)
                data = partial(functions.shared_data, service, text) if shared else None
                forked = partial(self._forked, Run(0, function, error_fd), since, owner, begun)
                self._fork_server.fork(write_end, forked, functions.shared_key(service), data)
                ours.pop_all()
                return None
            pid = self._start(launch, owner, error_fd)
            ours.pop_all()
        return Run(pid, function, error_fd, started=start_time_since(since, pid))

    def open_files(self, unit: Unit, role: Role, owner: Child) -> Run:
        """Start a process that opens what the table lacks, in place of the one with this role. Raises StepError."""
        specs, rights = unit.table.missing(unit.service), rights_of(unit.service)
        with ExitStack() as theirs, ExitStack() as ours:
            error_fd, write_end = _pair(ours, theirs)
            begun = clock_ticks()
            with step("fork"):
                pid = fork(lambda: open_elsewhere(specs, rights, write_end), [write_end])
            self.children.register(pid, owner)
            ours.pop_all()
        return Run(pid, role, error_fd, started=start_time_since(begun, pid), files=[])

    def _text(self, service: Service, function: Role) -> str:
        text = self._sources.get(service.source_digest)
        if text is None:
            raise failed(f"call {function.value}", "", 0, "the text of the definition is lost")
        return text

    def _function_descriptors(
        self, unit: Unit, function: Role, text: str | None, theirs: ExitStack
    ) -> tuple[tuple[str, Source], ...]:
        """Return the table if the service has no process, the order, and the file for the answer."""
        service = unit.service
        path = self._host.runtime.answer_path(service.name, function.value)
        with step("make", path):
            answer = open_answer(path)
        theirs.callback(os.close, answer)
        with step("make order of", service.name):
            order = functions.order_file(service, function, text)
        theirs.callback(os.close, order)
        table = () if service.has_process else self._table(unit)
        return (*table, ("order", order), ("answer", answer))

    def tell(self, notices: Iterable[str]) -> None:
        """Log features that services have to do without, once each, because the host lacks them."""
        for text in notices:
            if text not in self._told:
                self._told.add(text)
                log.warning("%s", text)

    def answer_path(self, unit: Unit, function: Role) -> str:
        return self._host.runtime.answer_path(unit.name, function.value)

    def prepare(self, unit: Unit) -> None:
        """Open missing descriptors that the unit keeps over its restarts. Raises StepError."""
        service = unit.service
        unit.tell_disconnected(unit.table.close_displaced())
        unit.table.close_disconnected()
        unit.close_shut()
        unit.table.open_missing(service)
        self.bind_receiver(unit)
        if service.accept is None and unit.session_table is not None:  # of the definition before
            unit.store.remove(SESSIONS)
        subtree = self._host.subtree
        if subtree is None:
            if service.has_session_cgroups:
                raise failed("use session_cgroup", "", errno.ENOTSUP, "spawnd has no delegated cgroup here")
            return
        subtree.check()
        if unit.cgroup is None or not unit.cgroup.exists():
            leaf = subtree.leaf(service.name)
            if leaf.is_populated():
                leaf.kill()  # left by an unknown spawnd
            for sentence in leaf.prepare(service.shared_resources):
                log.warning("%s: %s", unit.name, sentence)
            unit.cgroup = leaf
            unit.oom_kills = leaf.oom_kills() or 0
        if service.has_session_cgroups:
            unit.cgroup.part(self._uid(service))

    def bind_receiver(self, unit: Unit) -> None:
        """Make the unit's notification socket, if it needs one and has none, or none at its path.

        Raises StepError.
        """
        service = unit.service
        receiver = unit.receiver
        if receiver is not None and not is_bound(receiver.path):  # in spawnd's own folder, where access cannot hang
            self._read(unit, receiver)  # earlier messages
            if unit.receiver is receiver:
                notice("%s: the notification socket was not at its path: bound anew", unit.name)
                self._close_receiver(unit, receiver)
        if unit.receiver is None and _notifies(service):
            path = unit.notify_path or self._host.runtime.new_notify_path(service.name)
            with step("bind notify socket", path):
                self._host.runtime.make_notify_folder(path)
                receiver = Receiver.bind(path, self._uid(service), self._host.closer, self.children.when_reaped)
            self.listen(unit, receiver)

    def _uid(self, service: Service) -> int:
        return service.uid if self._host.is_root else os.geteuid()

    def drop_receiver(self, unit: Unit) -> None:
        """Close the unit's notification socket, if any; the next one has another path."""
        self.close_receiver(unit)
        unit.notify_path = ""

    def close_receiver(self, unit: Unit) -> None:
        """Close the unit's notification socket, if any, while it has no process; the next one has the same path."""
        if unit.receiver is not None:
            self._close_receiver(unit, unit.receiver)

    def _close_receiver(self, unit: Unit, receiver: Receiver) -> None:
        self._loop.unwatch(receiver.fileno())
        receiver.close()
        self._host.runtime.drop_notify_folder(receiver.path)
        unit.receiver = None

    def listen(self, unit: Unit, receiver: Receiver) -> None:
        """Give the unit a notification socket and watch it; takes ownership of it."""
        unit.receiver = receiver
        unit.notify_path = receiver.path
        receiver.on_room = partial(self._read_again, unit, receiver)
        self._loop.watch(receiver.fileno(), EPOLLIN, lambda _events: self._read(unit, receiver))

    def _read(self, unit: Unit, receiver: Receiver) -> None:
        begun = self._loop.clock()
        self._on_notification(unit)
        took = self._loop.clock() - begun
        if unit.receiver is not receiver:
            return
        if receiver.is_blocked:
            self._loop.modify(receiver.fileno(), 0)
            if not receiver.has_children:
                self._loop.call_later(READ_PAUSE, receiver.on_room)
        elif took >= LONG_TURN and not unit.service.worker:
            self._loop.modify(receiver.fileno(), 0)
            self._loop.call_later(min(took * REST, LONGEST_REST), receiver.on_room)

    def _read_again(self, unit: Unit, receiver: Receiver) -> None:
        if unit.receiver is receiver:
            self._loop.modify(receiver.fileno(), EPOLLIN)

    def _launch(self, unit: Unit, error_fd: int, looks: bool) -> Launch:
        """Return the launch of the check command, which other launches modify."""
        service = unit.service
        return Launch(
            argv=service.check,
            env=self._environment(unit),
            env_files=service.env_file,
            service=service,
            stdio=self._stdio(unit),
            cgroup=unit.cgroup.own if unit.cgroup is not None else "",
            mark=unit.make_mark() if unit.cgroup is None else "",
            error_fd=error_fd,
            nofile_soft=self._host.nofile_soft,
            ignored=self._host.ignored,
            spared=self._host.spared,
            is_root=self._host.is_root,
            keyring=self._host.is_root and self._host.has_keyring,
            rights=rights_of(service),
            marks=unit.table.marks() if looks else (),
        )

    def _environment(self, unit: Unit) -> dict[str, str]:
        """Return the definition's variables, and those about facts that a process cannot find out itself.

        These are the place of a worker's log, if that is neither its own nor spawnd's stderr, and whether the
        process is started only to be stopped.
        """
        env = unit.service.env
        if not self._host.stderr_is_open and unit.service.shares_log("stderr"):
            env = {**env, LOG_VARIABLE: TO_SYSLOG}
        if unit.life.step is Step.LAST:
            env = {**env, LAST_VARIABLE: "1"}
        return env

    def _start(self, launch: Launch, owner: Child, our_end: int, hears: bool = True, make: MakePlan = make_plan) -> int:
        """Start a process, which reports on the socket with our end `our_end`."""
        pid = self._fork(launch, hears) if launch.worker else self._execute(launch, our_end, hears, make)
        self.children.register(pid, owner)
        return pid

    def _fork(self, launch: Launch, hears: bool) -> int:
        load_shared(launch.service.worker)
        plan = child.forked_plan(launch, hears)
        with step("fork"):
            return fork(
                lambda: child.become_worker(plan, launch.error_fd, lambda: load_worker(launch.service.worker)),
                [launch.error_fd, *descriptors(launch)],
            )

    def _execute(self, launch: Launch, our_end: int, hears: bool, make: MakePlan) -> int:
        program = self._host.program
        arrival = program.arrival(descriptors(launch), launch.error_fd)
        plan = make(launch, arrival, hears)
        with step("fork"):
            return program.start(plan, arrival, launch.error_fd, our_end)

    def _stdio(self, unit: Unit) -> tuple[Source, Source, Source]:
        stdin, stdout, stderr = (self._source(unit, slot) for slot in range(FIRST))
        return stdin, stdout, stderr

    def _source(self, unit: Unit, slot: Slot) -> Source:
        spec = getattr(unit.service, STDIO[slot])
        if spec.kind == "log":
            return self._output(unit)
        if unit.service.shares_log(STDIO[slot]):
            return LOG_FD
        return self._slot(unit, slot, is_null(spec))

    def _output(self, unit: Unit) -> int:
        """Return the stream of its `log()`, which its process can open as `/dev/stderr` under any user."""
        return self._host.outputs.stream(unit.name, unit.service.gid if self._host.is_root else None)

    def _descriptors(self, unit: Unit, theirs: ExitStack) -> tuple[tuple[str, Source], ...]:
        """Return names and descriptors from 3 up: those of the table, those of a worker, the stored ones."""
        service = unit.service
        fds = self._table(unit)
        if service.worker:
            with step("make options of", service.name):
                options = options_file(service.options)
            theirs.callback(os.close, options)
            fds.append((OPTIONS, options))
        if unit.feed is not None:
            for name, fd in unit.feed():
                theirs.callback(os.close, fd)
                fds.append((name, fd))
        return (*fds, *unit.store.entries())

    def _table(self, unit: Unit) -> list[tuple[str, Source]]:
        return [(spec.name, self._slot(unit, slot, is_null(spec))) for slot, spec in enumerate(unit.service.fd, FIRST)]

    @staticmethod
    def _slot(unit: Unit, slot: Slot, null: bool) -> Source:
        return NULL_PATH if null else unit.table.fd(slot)


def _notifies(service: Service) -> bool:
    """Whether a service uses a notification socket; most services do not."""
    speaks = service.ready == "notify" or service.watchdog is not None or service.idle_stop is not None
    return speaks or service.fdstore_max > 0 or bool(service.worker)


def _pair(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """Return a pair of sockets: our nonblocking end, and the end on which the child reports and is released."""
    with step("make a pair of sockets"):
        one, other = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    one.setblocking(False)
    ours.callback(os.close, our_end := one.detach())
    theirs.callback(os.close, their_end := other.detach())
    return our_end, their_end


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """Return a pipe: our nonblocking read end, and the child's write end."""
    with step("make a pipe"):
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, read_end)
    theirs.callback(os.close, write_end)
    os.set_blocking(read_end, False)
    return read_end, write_end
