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
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, Protocol

from supervisor.linux.clone import fork_sibling
from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range, memfd
from supervisor.log.logger import close_inherited_log
from supervisor.loop.loop import Loop, Timer
from supervisor.process.children import Children, Exit
from supervisor.process.failure import failed
from supervisor.process.fork import EXIT_CHILD_FAILED, default_signals, fork

IDLE = 10.0  # seconds without work until it ends
FORK_TIMEOUT = 5.0  # seconds for a fork; a slower fork server is killed
LONGEST_KEY = 8192  # bytes, enough for a path
SOCKET = 3  # descriptor of its end, and of that of a child

MOST_SHARED = 64  # shared items at which a new fork server is started


class Program(Protocol):
    """The program of the children, with the modules that the fork server has loaded."""

    def share(self, key: str, data: bytes) -> None:
        """Prepare an item for all later children; it has to be fast, because spawnd waits."""

    def run_child(self, fd: int) -> object:
        """Run a child with its descriptor; never returns."""


class ForkServer:
    """A fork server; `load` does the imports of the children in it, and returns their common program.

    Owns the socket. The fork server is forked when there is work, and reaped like other children. If it
    `stays`, it does not end without work.
    """

    def __init__(self, loop: Loop, children: Children, load: Callable[[], Program], stays: bool = False) -> None:
        self._loop = loop
        self._children = children
        self._load = load
        self._stays = stays
        self._socket: socket.socket | None = None
        self._pid = 0
        self._shared: set[str] = set()  # keys of items sent to this fork server
        self._used = 0.0
        self._timer: Timer | None = None

    def fork(self, fd: int, key: str = "", data: Callable[[], bytes] | None = None) -> int:
        """Fork a child with a copy of `fd`, and return its pid. Raises StepError.

        With a `key`, the child has the result of `Program.share` for `data`. The call waits for the fork,
        like fork(2), so the child is known before it can be reaped. A fork server that was killed is replaced,
        unless it has read the order: it may have forked a child, which would go on in place of the second one.
        """
        self._used = self._loop.clock()
        if len(self._shared) > MOST_SHARED:
            self.close()
        try:
            return self._ask(fd, key, data)
        except ConnectionError:
            self.close()  # the fork server was killed, and has not read the order
        except OSError as error:
            self._give_up(error)
        try:
            return self._ask(fd, key, data)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> NoReturn:
        self.close()
        raise failed("fork", "", error.errno or 0, error.strerror or str(error)) from error

    def close(self) -> None:
        """End the fork server; the next fork starts another one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._shared.clear()
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)  # not reaped yet, else the socket would be closed

    def _ask(self, fd: int, key: str, data: Callable[[], bytes] | None) -> int:
        connection = self._socket or self._start()
        if data is None or key in self._shared:
            socket.send_fds(connection, [b"f"], [fd])
        else:
            shared = memfd("shared", data())
            try:
                socket.send_fds(connection, [key.encode(errors="surrogateescape")], [fd, shared])
            finally:
                os.close(shared)
            self._shared.add(key)
        if not _is_readable(connection, FORK_TIMEOUT):
            raise OSError(errno.ETIMEDOUT, f"not done within {FORK_TIMEOUT:g} s")
        answer = connection.recv(32)
        if not answer:
            raise OSError(errno.ECHILD, "what was to do it has ended")
        pid = int(answer)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

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
        self._used = self._loop.clock()  # on a busy machine, the fork may have taken longer than IDLE
        self._look()
        return ours

    def _look(self) -> None:
        """Check for idleness; a timer that expires early is set again."""
        self._timer = None
        if self._stays:
            return
        left = self._used + IDLE - self._loop.clock()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.close()

    # the fork server as a child of spawnd

    def died(self, pid: int) -> None:
        if pid == self._pid:
            self.close()

    def reaped(self, pid: int, exit: Exit) -> None:
        pass


def _is_readable(connection: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


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
            message, fds, _flags, _address = socket.recv_fds(connection, LONGEST_KEY, 2)
            if not message:
                os._exit(0)  # spawnd has no more work, or is gone
            os.set_inheritable(fds[0], False)
            if len(fds) > 1:
                with open(fds[1], "rb") as file:
                    program.share(message.decode(errors="surrogateescape"), file.read())
            connection.send(str(_fork(connection, program, fds[0])).encode())


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
