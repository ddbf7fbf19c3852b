"""Starting a process of a unit: open what is missing, fork, register."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from select import EPOLLIN

from supervisor.definitions.service import Service
from supervisor.log.logger import log
from supervisor.log.output import Outputs
from supervisor.loop.loop import Loop
from supervisor.manager import functions
from supervisor.manager.depot import Depot
from supervisor.manager.families import Families
from supervisor.manager.job import send_job
from supervisor.manager.runtime import RuntimeFolder
from supervisor.manager.scope import Scope
from supervisor.manager.texts import Texts
from supervisor.manager.unit import Unit
from supervisor.manager.worker import OPTIONS, load_shared, load_worker, options_file, worker_command
from supervisor.notify.receiver import Receiver
from supervisor.process import child
from supervisor.process.answer import open_answer
from supervisor.process.cgroup import Subtree
from supervisor.process.children import Child, Children
from supervisor.process.descriptors import NULL_PATH, is_null
from supervisor.process.fork import fork
from supervisor.process.launch import Launch, Source
from supervisor.process.leftovers import start_time
from supervisor.process.network_namespace import namespace_of_name
from supervisor.process.nursery import Nursery
from supervisor.process.run import Role, Run
from supervisor.process.step import failed, step
from supervisor.process.table import STDIO

LOG_FD = 2  # spawnd's own stderr, which workers share


@dataclass(frozen=True, slots=True)
class Host:
    """What spawnd found out about itself at its start.

    `nofile_soft` is the soft descriptor limit that it was started with, `subtree` the
    delegated cgroup, None where there is none, `scope` systemd's, where the subtree is that.
    `depot` is what systemd keeps.  `spared`: the kernel spares it when memory is short.
    """

    is_root: bool
    nofile_soft: int
    runtime: RuntimeFolder
    outputs: Outputs
    subtree: Subtree | None
    depot: Depot
    scope: Scope | None = None
    spared: bool = False


class Launcher:
    """`on_notification(unit)` is called when there is something to read on the unit's notification socket."""

    def __init__(
        self, loop: Loop, children: Children, host: Host, texts: Texts, on_notification: Callable[[Unit], None]
    ) -> None:
        self._loop = loop
        self._children = children
        self._host = host
        self._texts = texts
        self._nursery = Nursery(loop, children, functions.load)
        self._families = Families(loop, children)
        self._on_notification = on_notification

    def launch(self, unit: Unit, owner: Child) -> Run:
        """Start the unit's main process.  Raises StepError, and then nothing was started."""
        self.prepare(unit)
        unit.table.rewind()
        service = unit.service
        # before it goes there: if another gets the name in between, it is taken for displaced, and started once more
        netns = namespace_of_name(service.netns) if service.netns else None
        with ExitStack() as theirs, ExitStack() as ours:
            fds = self._descriptors(unit, theirs)
            ready_fd, ready = -1, None
            if service.ready == "fd" and service.ready_fd is not None:
                ready_fd, write_end = _pipe(ours, theirs)
                ready = (service.ready_fd, write_end)
            error_fd, write_end = _pair(ours, theirs)
            apart = self._host.is_root and service.uid != 0
            launch = replace(
                self._launch(unit, write_end),
                argv=worker_command(service.worker) if service.worker else (service.exec, *service.arg),
                fds=fds,
                ready=ready,
                notify_socket=unit.receiver.path if unit.receiver is not None else "",
                watchdog_usec=round((service.watchdog or 0) * 1_000_000),
                worker=bool(service.worker) and not apart,
            )
            if self._families.takes(launch):
                pid = self._families.fork(launch, error_fd)
                self._children.register(pid, owner)
            else:
                pid = self._fork(launch, owner)
            ours.pop_all()
        return Run(pid, Role.MAIN, error_fd, ready_fd, started=start_time(pid), netns=netns)

    def check(self, unit: Unit, owner: Child) -> Run:
        """Start the unit's check command, as its user and with its output.  Raises StepError."""
        self.prepare(unit)
        with ExitStack() as theirs, ExitStack() as ours:
            error_fd, write_end = _pair(ours, theirs)
            pid = self._fork(self._launch(unit, write_end), owner)
            ours.pop_all()
        return Run(pid, Role.CHECK, error_fd, started=start_time(pid))

    def call(self, unit: Unit, function: Role, owner: Child) -> Run:
        """Call a function of the unit, in a process of its own.  Raises StepError."""
        self.prepare(unit)
        with ExitStack() as theirs, ExitStack() as ours:
            text = self._text(unit.service, function)
            shared = len(text) >= functions.SHARED
            service = functions.as_called(unit.service)
            apart = self._host.is_root and service.uid != 0
            order_text = None if shared and not apart else text
            fds = self._function_descriptors(unit, function, order_text, theirs)
            error_fd, write_end = _pair(ours, theirs)
            output = self._host.outputs.stream(unit.name)
            launch = replace(
                self._launch(unit, write_end),
                argv=worker_command(functions.WORKER),
                service=service,
                stdio=(NULL_PATH, output, output),
                fds=fds,
                worker=not apart,
            )
            if apart:
                pid = self._fork(launch, owner)
            else:
                send_job(error_fd, launch)
                data = partial(functions.shared_data, service, text) if shared else None
                pid = self._nursery.fork(write_end, functions.shared_key(service), data)
                self._children.register(pid, owner)
            ours.pop_all()
        return Run(pid, function, error_fd, started=start_time(pid))

    def _text(self, service: Service, function: Role) -> str:
        text = self._texts.get(service.text)
        if text is None:
            raise failed(f"call {function.value}", "", 0, "the text of the definition is lost")
        return text

    def _function_descriptors(
        self, unit: Unit, function: Role, text: str | None, theirs: ExitStack
    ) -> tuple[tuple[str, Source], ...]:
        """The table where no process is to have it, then the order, and the file for the answer."""
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

    def known_children(self) -> set[int]:
        return self._children.pids()

    def answer_path(self, unit: Unit, function: Role) -> str:
        return self._host.runtime.answer_path(unit.name, function.value)

    def prepare(self, unit: Unit) -> None:
        """Open what the unit holds over its restarts and has not open yet.  Raises StepError."""
        service = unit.service
        unit.table.close_displaced()
        unit.table.open_missing(service)
        self.bind_receiver(unit)
        subtree = self._host.subtree
        if subtree is None:
            return
        subtree.check()
        if unit.cgroup is None or not unit.cgroup.exists():
            leaf = subtree.leaf(service.name)
            if leaf.is_populated():
                leaf.kill()  # of a spawnd that nothing is known of any more
            for sentence in leaf.prepare(service.resources):
                log.warning("%s: %s", unit.name, sentence)
            unit.cgroup = leaf
            unit.oom_kills = leaf.oom_kills() or 0

    def bind_receiver(self, unit: Unit) -> None:
        """Make the unit's notification socket, if it is to have one and has not yet.  Raises StepError."""
        service = unit.service
        if unit.receiver is None and _notifies(service):
            path = self._host.runtime.notify_path(service.name)
            with step("bind notify socket", path):
                self.listen(unit, Receiver.bind(path, service.uid if self._host.is_root else os.geteuid()))

    def listen(self, unit: Unit, receiver: Receiver) -> None:
        """Give the unit its notification socket and hear what comes there; takes it over."""
        unit.receiver = receiver
        self._loop.watch(receiver.fileno(), EPOLLIN, lambda _events: self._on_notification(unit))

    def _launch(self, unit: Unit, error_fd: int) -> Launch:
        """What main process and check command have in common; the command is the check's."""
        service = unit.service
        return Launch(
            argv=service.check,
            env=service.env,
            env_files=service.env_file,
            service=service,
            stdio=self._stdio(unit),
            cgroup=unit.cgroup.path if unit.cgroup is not None else "",
            error_fd=error_fd,
            nofile_soft=self._host.nofile_soft,
            spared=self._host.spared,
            is_root=self._host.is_root,
        )

    def _fork(self, launch: Launch, owner: Child) -> int:
        load = (lambda: load_worker(launch.service.worker)) if launch.worker else None
        if launch.worker:
            load_shared(launch.service.worker)
        child.prepare(launch)
        with step("fork"):
            pid = fork(lambda: child.run(launch, load))
        self._children.register(pid, owner)
        return pid

    def _stdio(self, unit: Unit) -> tuple[Source, Source, Source]:
        stdin, stdout, stderr = (self._source(unit, slot) for slot in STDIO)
        return stdin, stdout, stderr

    def _source(self, unit: Unit, slot: str) -> Source:
        spec = getattr(unit.service, slot)
        if spec.kind == "log":
            return self._host.outputs.stream(unit.name)
        if unit.service.shares_log(slot):
            return LOG_FD
        return self._slot(unit, slot, is_null(spec))

    def _descriptors(self, unit: Unit, theirs: ExitStack) -> tuple[tuple[str, Source], ...]:
        """Names and descriptors from 3 up: the table's, a worker's, the stored ones."""
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
        return [(spec.name, self._slot(unit, str(n), is_null(spec))) for n, spec in enumerate(unit.service.fd, 3)]

    @staticmethod
    def _slot(unit: Unit, slot: str, null: bool) -> Source:
        return NULL_PATH if null else unit.table.fd(slot)


def _notifies(service: Service) -> bool:
    """Whether it has anything to say on a notification socket: most services have not, and need none."""
    return service.ready == "notify" or service.watchdog is not None or service.fdstore_max > 0 or bool(service.worker)


def _pair(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """A pair of sockets: ours, which does not block, and the child's, on which it reports and is released."""
    with step("make a pair of sockets"):
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    one.setblocking(False)
    ours.callback(os.close, our_end := one.detach())
    theirs.callback(os.close, their_end := other.detach())
    return our_end, their_end


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """A pipe: the end to read, which is ours and does not block, and the end to write, which is the child's."""
    with step("make a pipe"):
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, read_end)
    theirs.callback(os.close, write_end)
    os.set_blocking(read_end, False)
    return read_end, write_end
