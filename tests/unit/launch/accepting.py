"""An acceptor as spawnd starts it: its descriptors, options, plan and table, on loopback sockets."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from fcntl import F_ADD_SEALS, F_DUPFD_CLOEXEC, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from functools import partial
from ipaddress import ip_network
from typing import Any

from supervisor.launch import ACCEPTOR
from supervisor.launch.acceptor import RESERVE, Entry, Options, encode
from supervisor.launch.operations import Kind, operation, plan
from supervisor.launch.session_table import Counters, Session, end_generation, make_table, read_counters, read_sessions
from supervisor.linux.signal_mask import ignored
from supervisor.process.fork import default_signals, fork

SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
DEADLINE = 30  # seconds
HIGH = 200  # numbers that no descriptor of the acceptor has
OTHERS = 20  # the number of the first further listening socket


def sealed(data: bytes) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl(fd, F_ADD_SEALS, SEALS)
    return fd


def session_plan(
    argv: Sequence[str], more: Sequence[bytes] = (), *, descriptor: int = 0, flags: int = 0, last: Sequence[bytes] = ()
) -> bytes:
    """Return the plan of a session; `more` are operations of the environment, `last` those of a confinement."""
    moves = [RESERVE, 0, RESERVE, 1] if descriptor == 0 else [RESERVE, RESERVE]
    return plan([
        operation(Kind.SESSION, "start a session"),
        operation(Kind.SIGNALS, "reset signals", numbers=[1, ignored()]),
        operation(Kind.MOVE, "place", numbers=moves),
        *more,
        *last,
        operation(Kind.EXECUTE, "exec", argv[0], [flags], argv),
    ])  # fmt: skip


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition. Raises AssertionError at the deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def read_to_end(connection: socket.socket) -> bytes:
    """Read what a client gets; a reset ends it, too."""
    data = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            data += part
    return data


class Acceptor:
    """An acceptor and the table that outlives it. `stop` ends the acceptor, `close` all of it.

    It has the listening sockets `listener` and `others`; `before` is called in its process first.
    """

    def __init__(self, argv: Sequence[str] = ("/bin/echo", "ok"), **changes: Any) -> None:
        self.stack = ExitStack()
        self.listener: socket.socket = changes.pop("listener", None) or tcp()
        self.stack.callback(self.listener.close)
        self.environment: Mapping[str, str] = changes.pop("environment", {"A": "1"})
        self.plan: bytes = changes.pop("plan", None) or session_plan(argv)
        self.before: Callable[[], object] | None = changes.pop("before", None)
        self.table = make_table()
        self.stack.callback(os.close, self.table)
        self.others: tuple[socket.socket, ...] = changes.pop("others", ())
        self.log, self.log_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.lines = b""
        self.options = changes
        self.pid = 0
        self.status = 0
        self.start()

    def start(self, **changes: Any) -> None:
        """Start the next acceptor."""
        self.options |= changes
        files = {
            name: self.options[name]
            for name in ("denied", "banner", "refused_banner", "memory", "sessions")
            if self.options.get(name, -1) >= 0
        }
        numbers = {name: 10 + number for number, name in enumerate(files)}
        others = {OTHERS + number: other.fileno() for number, other in enumerate(self.others)}
        options = Options(plan=5, table=6, processes=7, listeners=(4, *others), **(self.options | numbers))
        null, proc = os.open("/dev/null", os.O_RDWR), os.open("/proc", os.O_PATH)
        own = [null, proc, sealed(self.plan), sealed(encode(options))]
        table = {0: null, 1: null, 2: self.log_end, 3: null, 4: self.listener.fileno()}
        table |= {5: own[2], 6: self.table, 7: proc, 8: own[3]}
        table |= {numbers[name]: fd for name, fd in files.items()} | others
        self.pid = fork(partial(_become, table, dict(self.environment), self.before))
        for fd in own:
            os.close(fd)

    def counters(self) -> Counters:
        return read_counters(self.table)

    def sessions(self) -> list[Session]:
        return list(read_sessions(self.table))

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        if self.listener.family == socket.AF_UNIX:
            client = socket.socket(socket.AF_UNIX, self.listener.type)
            client.settimeout(DEADLINE)
            client.connect(self.listener.getsockname())
            return client
        host, port = self.listener.getsockname()[:2]
        here = (source, 0) if self.listener.family == socket.AF_INET else None
        return socket.create_connection((host, port), DEADLINE, here)

    def ask(self, source: str = "127.0.0.1") -> bytes:
        """Return all that a client gets."""
        with self.connect(source) as client:
            return read_to_end(client)

    def text(self) -> str:
        """Return the log so far."""
        with suppress(BlockingIOError):
            while part := os.read(self.log, 65536):
                self.lines += part
        return self.lines.decode()

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """End the acceptor alone."""
        os.kill(self.pid, signum)
        self.wait()

    def wait(self) -> int:
        """Return the exit status of the acceptor, once it has ended by itself."""
        wait_until(self._has_ended)
        return self.status

    def ends_within(self, seconds: float) -> bool:
        """Whether the acceptor ends by itself in this time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._has_ended():
            time.sleep(0.01)
        return self.pid == 0

    def _has_ended(self) -> bool:
        if self.pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid, self.status = 0, os.waitstatus_to_exitcode(status)
        return self.pid == 0

    def close(self) -> None:
        if not self._has_ended():
            self.stop(signal.SIGKILL)
        end_generation(self.table)
        for session in self.sessions():
            for kill in (os.killpg, os.kill):  # it may not have a group of its own yet
                with suppress(ProcessLookupError):
                    kill(session.pid, signal.SIGKILL)
        self.stack.close()
        os.close(self.log)
        os.close(self.log_end)

    def __enter__(self) -> Acceptor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def networks(text: str) -> tuple[Entry, ...]:
    return tuple(ip_network(word) for word in text.split())


def is_let_in(port: int, source: str = "127.0.0.1") -> bool:
    """Whether a client gets back what it sends."""
    try:
        with socket.create_connection(("127.0.0.1", port), 30, (source, 0)) as client:
            client.send(b"x")
            return client.recv(1) == b"x"
    except ConnectionError:
        return False


def port_of(acceptor: Acceptor) -> int:
    return int(acceptor.listener.getsockname()[1])


def is_answered(client: socket.socket) -> bool:
    try:
        client.send(b"x")
        return client.recv(1) == b"x"
    except ConnectionError:
        return False


def tcp(host: str = "127.0.0.1", backlog: int = 128) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((host, 0))
    listener.listen(backlog)
    return listener


def _become(table: Mapping[int, int], environment: Mapping[str, str], before: Callable[[], object] | None) -> None:
    """In the child: give the descriptors their numbers, and execute the acceptor."""
    high = {target: fcntl(fd, F_DUPFD_CLOEXEC, HIGH) for target, fd in table.items()}
    os.closerange(3, HIGH)
    for target, fd in high.items():
        os.dup2(fd, target)
    if before is not None:
        before()
    default_signals()
    os.execve(ACCEPTOR, ["acceptor", "8"], environment)  # noqa: S606  # that is the point
