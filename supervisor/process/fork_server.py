"""Children that need slow imports, forked by a process that has done the imports.

spawnd never loads Lua, and a child of spawnd would load it again for each call of a service's function.
Therefore one process, the fork server, loads it, and only forks. Its forks are children of spawnd itself
(`CLONE_PARENT`), which reaps and kills them like others. It lives while there is work, or as long as spawnd,
and holds only its end of a socket; it ends when the other end is closed.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import socket
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import NoReturn, Protocol

from supervisor.errors import StepError
from supervisor.linux.clone import fork_sibling
from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range, memfd
from supervisor.log.logger import close_inherited_log
from supervisor.loop.loop import Loop, Timer
from supervisor.process.children import Children, Exit
from supervisor.process.failure import failed, step
from supervisor.process.fork import EXIT_CHILD_FAILED, default_signals, fork

IDLE = 10.0  # seconds without work until it ends
FORK_TIMEOUT = 5.0  # seconds for a fork, imports included; a slower fork server is killed
LONGEST_KEY = 8192  # bytes, enough for a path
SOCKET = 3  # descriptor of its end, and of that of a child

MOST_SHARED = 64  # shared items at which a new fork server is started


class Program(Protocol):
    """The program of the children, with the modules that the fork server has loaded."""

    def share(self, key: str, data: bytes) -> None:
        """Prepare an item for all later children; it has to be fast, because other children wait."""

    def run_child(self, fd: int) -> object:
        """Run a child with its descriptor; never returns."""


Done = Callable[[int | StepError], None]


@dataclass(slots=True, eq=False)
class _Order:
    """A fork to be made. Owns `fd`, the end of a pair of sockets for the child."""

    fd: int
    key: str
    data: Callable[[], bytes] | None
    done: Done
    is_second: bool = False  # an earlier fork server was killed, and has not read it


class ForkServer:
    """A fork server; `load` does the imports of the children in it, and returns their common program.

    Owns the socket. The fork server is forked when there is work, and reaped like other children. If it
    `stays`, it does not end without work. It has one order at a time, so that the end of its socket tells whether
    that order was read.
    """

    def __init__(self, loop: Loop, children: Children, load: Callable[[], Program], stays: bool = False) -> None:
        self._loop = loop
        self._children = children
        self._load = load
        self._stays = stays
        self._socket: socket.socket | None = None
        self._pid = 0  # 0 once it has died
        self._shared: set[str] = set()  # keys of items sent to this fork server
        self._used = 0.0
        self._timer: Timer | None = None
        self._orders: deque[_Order] = deque()
        self._asked: _Order | None = None
        self._limit: Timer | None = None  # for its answer

    @property
    def is_busy(self) -> bool:
        """Whether an order has no answer yet."""
        return self._asked is not None or bool(self._orders)

    def fork(self, fd: int, done: Done, key: str = "", data: Callable[[], bytes] | None = None) -> None:
        """Fork a child with a copy of `fd`. The loop calls `done` with its pid, or with the error. Raises StepError.

        With a `key`, the child has the result of `Program.share` for `data`. No child that is not registered is
        reaped before `done`, which registers this one. A fork server that was killed is replaced, unless it has
        read the order: it may have forked a child, which would go on in place of the second one.
        """
        self._used = self._loop.clock()
        with step("fork"):
            self._orders.append(_Order(fcntl(fd, F_DUPFD_CLOEXEC, 0), key, data, done))
        self._go_on()

    def close(self) -> None:
        """End the fork server; the next fork starts another one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._shared.clear()
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)  # not reaped yet

    def _go_on(self) -> None:
        """Send the next order. An order that cannot be sent has failed."""
        if self._asked is not None or not self._orders:
            return
        if len(self._shared) > MOST_SHARED:
            self.close()
        order = self._asked = self._orders.popleft()
        self._children.expect(1)
        self._limit = self._loop.limit_later(FORK_TIMEOUT, self._too_late)
        try:
            self._ask(order)
        except ConnectionError:
            self._unread(order)
        except OSError as error:
            self._fail(order, error)

    def _ask(self, order: _Order) -> None:
        connection = self._socket or self._start()
        key, data = order.key, order.data
        if data is None or key in self._shared:
            socket.send_fds(connection, [b"f"], [order.fd])
            return
        shared = memfd("shared", data())
        try:
            socket.send_fds(connection, [key.encode(errors="surrogateescape")], [order.fd, shared])
        finally:
            os.close(shared)
        self._shared.add(key)

    def _take_answer(self) -> None:
        """Read the answer to the order, or the end of the fork server."""
        order, connection = self._asked, self._socket
        if connection is None:
            return
        answer: bytes | None
        try:
            answer = connection.recv(32)
        except BlockingIOError:
            return
        except OSError:  # it was killed, and has not read the order
            answer = None
        if order is None:
            self.close()
        elif answer:
            pid = int(answer)
            self._decide(order, pid if pid >= 0 else failed("fork", "", -pid, os.strerror(-pid)))
        elif answer is None:
            self._unread(order)
        else:
            self._fail(order, OSError(errno.ECHILD, "what was to do it has ended"))

    def _unread(self, order: _Order) -> None:
        """Give an order that was not read to another fork server, once."""
        self.close()
        if order.is_second:
            self._fail(order, OSError(errno.ECHILD, "what was to do it has ended"))
            return
        order.is_second = True
        try:
            self._ask(order)
        except OSError as error:
            self._fail(order, error)

    def _too_late(self) -> None:
        if self._asked is not None:
            self._fail(self._asked, OSError(errno.ETIMEDOUT, f"not done within {FORK_TIMEOUT:g} s"))

    def _fail(self, order: _Order, error: OSError) -> None:
        self.close()
        # from the loop: the caller of `fork` does not expect it yet
        result = failed("fork", "", error.errno or 0, error.strerror or str(error))
        self._loop.call_later(0.0, lambda: self._decide(order, result))

    def _decide(self, order: _Order, result: int | StepError) -> None:
        """Tell the result of the present order, and send the next one."""
        if self._asked is not order:
            return
        if self._limit is not None:
            self._limit.cancel()
        self._asked = None
        os.close(order.fd)
        try:
            order.done(result)
        finally:
            self._children.expect(-1)
            self._loop.call_later(0.0, self._children.reap)
            self._go_on()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            ours.setblocking(False)
            self._pid = fork(lambda: _be_fork_server(theirs.fileno(), self._load), [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._children.register(self._pid, self)
        self._socket = ours
        self._loop.watch(ours.fileno(), select.EPOLLIN, lambda _events: self._take_answer())
        self._used = self._loop.clock()  # on a busy machine, the fork may have taken longer than IDLE
        self._look()
        return ours

    def _look(self) -> None:
        """Check for idleness; a timer that expires early is set again."""
        self._timer = None
        if self._stays:
            return
        left = IDLE if self.is_busy else self._used + IDLE - self._loop.clock()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.close()

    # the fork server as a child of spawnd

    def died(self, pid: int) -> None:
        if pid != self._pid:
            return
        self._pid = 0
        self._take_answer()
        # a child that it has just made may have a copy of its socket for a moment, whose end tells of the order
        if self._pid == 0 and self._asked is None:
            self.close()

    def reaped(self, pid: int, exit: Exit) -> None:
        pass


# in the fork server


def _be_fork_server(fd: int, load: Callable[[], Program]) -> None:
    os.setsid()  # signals of a terminal to spawnd's group must not reach it
    default_signals()
    close_inherited_log()
    os.dup2(fd, SOCKET, inheritable=False)
    close_range(SOCKET + 1, LAST_DESCRIPTOR)
    program = load()
    gc.freeze()  # objects that exist now are not visited, and thus not copied, by each child's collector
    with socket.socket(fileno=SOCKET) as connection:
        while True:
            message = b""
            with suppress(ConnectionError):
                message, fds, _flags, _address = socket.recv_fds(connection, LONGEST_KEY, 2)
            if not message:
                os._exit(0)  # spawnd has no more work, or is gone
            os.set_inheritable(fds[0], False)
            if len(fds) > 1:
                with open(fds[1], "rb") as file:
                    program.share(message.decode(errors="surrogateescape"), file.read())
            answer = _fork(connection, program, fds[0])
            try:
                connection.send(str(answer).encode())
            except ConnectionError:
                os._exit(0)  # spawnd is gone, and the child ends


def _fork(connection: socket.socket, program: Program, fd: int) -> int:
    """Fork a child; return its pid, or a negative errno."""
    try:
        pid = fork_sibling()
        if pid == 0:
            _be_child(connection, program, fd)
        return pid
    except OSError as error:
        return -(error.errno or errno.EIO)
    finally:
        os.close(fd)


def _be_child(connection: socket.socket, program: Program, fd: int) -> NoReturn:
    try:
        connection.close()
        close_inherited_log()
        os.dup2(fd, SOCKET, inheritable=False)  # as the plan of the child has it
        os.close(fd)
        program.run_child(SOCKET)
    except BaseException:
        with suppress(BaseException):
            os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(EXIT_CHILD_FAILED)
