"""`spawnctl` as tests run it by the hundred: each run is a fork of a process that has loaded it, with pipes of its own.

A start of Python takes several times as long as the rest of a run.  The program as it is installed is run by
`integration/test_invocation.py`, by `integration/test_pages.py` and wherever a test needs its process.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any

MOST = 1 << 20  # bytes of a request
_lock = threading.Lock()
_servers: dict[int, tuple[socket.socket, subprocess.Popen[bytes]]] = {}  # by the process that runs them


def run(arguments: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run spawnctl and return its exit status and output.  Raises TimeoutExpired, when it has been killed."""
    pipes = [os.pipe() for _ in range(2)]
    ours, theirs = socket.socketpair()
    request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
    try:
        with theirs:
            fds = [theirs.fileno(), *(written for _, written in pipes)]
            with _lock:
                socket.send_fds(_connected(), [json.dumps(request).encode()], fds)
    finally:
        for _, written in pipes:
            os.close(written)
    with ours:
        ends = [ours.fileno(), *(read for read, _ in pipes)]
        try:
            status, output, errors = _read_all(ends, time.monotonic() + timeout)
        except TimeoutError:
            raise subprocess.TimeoutExpired(["spawnctl", *arguments], timeout) from None
        finally:
            for read, _ in pipes:
                os.close(read)
    command = ["spawnctl", *arguments]
    return subprocess.CompletedProcess(command, int(status), _text(output), _text(errors))


def _text(data: bytes) -> str:
    return data.decode().replace("\r\n", "\n").replace("\r", "\n")  # as `subprocess` reads text


def _read_all(fds: list[int], deadline: float) -> list[bytes]:
    """Return the data of each up to its end.  Raises TimeoutError."""
    found = dict.fromkeys(fds, b"")
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    left = len(fds)
    while left:
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise TimeoutError
        for fd, _ in ready:
            data = os.read(fd, 65536)
            found[fd] += data
            if not data:
                poll.unregister(fd)
                left -= 1
    return list(found.values())


def _connected() -> socket.socket:
    """Return the connection to the server of this process, which is started with the first run."""
    if os.getpid() not in _servers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", __file__, str(theirs.fileno())]
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        _servers[os.getpid()] = ours, server
        atexit.register(_end, os.getpid())
    return _servers[os.getpid()][0]


def _end(owner: int) -> None:
    if owner == os.getpid():
        sock, server = _servers.pop(owner)
        sock.close()
        server.wait()


# the process that has loaded spawnctl


class Server:
    """Forks for each request, and tells of the end of each fork.  A fork whose client is gone is killed."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._clients: dict[int, int] = {}  # connections by pidfd
        self._pidfds: dict[int, int] = {}  # the other way round
        self._pids: dict[int, int] = {}  # by pidfd

    def serve(self) -> None:
        """Return when the tests have ended."""
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._clients:
                    self._tell(fd)
                elif fd in self._pidfds:
                    signal.pidfd_send_signal(self._pidfds[fd], signal.SIGKILL)
                    self._poll.unregister(fd)
                elif fd == self._sock.fileno() and not self._accept():
                    return

    def _accept(self) -> bool:
        """Fork for the next request; whether there was one."""
        data, fds, _, _ = socket.recv_fds(self._sock, MOST, 3)
        if not data:
            return False
        pid = os.fork()
        if pid == 0:
            become_spawnctl(json.loads(data), *fds[1:])
        for fd in fds[1:]:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._clients[pidfd], self._pidfds[fds[0]], self._pids[pidfd] = fds[0], pidfd, pid
        self._poll.register(pidfd, select.POLLIN)
        self._poll.register(fds[0], select.POLLHUP)
        return True

    def _tell(self, pidfd: int) -> None:
        client = self._clients.pop(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(self._pids.pop(pidfd), 0)[1])
        with suppress(BrokenPipeError):
            os.write(client, str(status).encode())
        del self._pidfds[client]
        for fd in (pidfd, client):
            with suppress(KeyError):
                self._poll.unregister(fd)
            os.close(fd)


def become_spawnctl(request: dict[str, Any], output: int, errors: int) -> None:
    """Do what the installed program does, and end."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        # those that Python has made were for other files
        sys.stdout = open(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False)
        sys.stderr = open(2, "w", 1, encoding=sys.stderr.encoding, errors=sys.stderr.errors, closefd=False)
        os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.argv = ["spawnctl", *request["arguments"]]
        status = spawn_supervisor.spawnctl()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    import spawn_supervisor

    for loaded in ("supervisor.ctl.main", "supervisor.ctl.output"):
        import_module(loaded)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which is for the tests
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        Server(connection).serve()
