"""The accessory in a child of the test, as spawnd would have started it, and a store that outlives it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import traceback
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from tests.daemon import children, command_name
from tests.unit.waiting import turn, wait_exit, wait_until
from tests.unit.workers.spawnd import FakeSpawnd
from workers.accessory.client import Accessory

FIRST = 3
OUT_OF_THE_WAY = 500
_NUMBERS = count(1)


class Worker:
    """Owns the listening socket, spawnd's end and the worker's process, if there is one."""

    def __init__(self, spawnd: FakeSpawnd, options: Mapping[str, Any]) -> None:
        self.spawnd = spawnd
        self.options = options
        self.address = f"@accessory-test-{os.getpid()}-{next(_NUMBERS)}"
        self.pid = 0
        self.log = os.memfd_create("log")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._listener.bind("\0" + self.address[1:])
        self._listener.listen(64)

    def start(self, **environment: str) -> None:
        """Start it with all that is in the store, and wait until it is ready."""
        fds = [("accessory", self._listener.fileno()), ("options", self._options()), *self.spawnd.store.entries()]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become(fds, self.log, {"NOTIFY_SOCKET": str(self.spawnd.path), **environment})
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(fds[1][1])
        self.spawnd.said.clear()
        self.wait_said("READY=1")

    def wait_said(self, line: str) -> None:
        wait_until(lambda: self.stored() and line in self.spawnd.said)

    def take(self) -> None:
        """Have spawnd take what is in its queue, and hear what hangs up."""
        turn(self.spawnd.loop, 3)

    def stored(self) -> list[str]:
        """The names of what is in the store, now that all has been taken."""
        self.take()
        return self.spawnd.names()

    def connect(self) -> Accessory:
        return Accessory(self.address, timeout=60)

    def kill(self) -> None:
        """kill -9; what it said until then is taken."""
        os.kill(self.pid, signal.SIGKILL)
        wait_exit(self.pid)
        self.pid = 0
        self.take()

    def end(self, signum: int = signal.SIGTERM) -> int:
        """End it in order; its exit status."""
        os.kill(self.pid, signum)
        status = wait_exit(self.pid)
        self.pid = 0
        self.take()
        return status

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def inits(self) -> list[int]:
        return [pid for pid in children(self.pid) if command_name(pid).startswith("i")]

    def said(self) -> str:
        """Its log."""
        return os.pread(self.log, 1 << 20, 0).decode(errors="replace")

    def close(self) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                self.end()
        self._listener.close()
        os.close(self.log)

    def _options(self) -> int:
        fd = os.memfd_create("options")
        os.write(fd, json.dumps(self.options).encode())
        return fd


def _become(fds: list[tuple[str, int]], log: int, environment: Mapping[str, str]) -> None:
    """In the child: have the descriptors from 3 up and nothing else, and be the worker."""
    from workers.accessory.main import main

    signal.set_wakeup_fd(-1)
    os.setsid()
    os.dup2(log, 2)
    os.lseek(2, 0, os.SEEK_END)
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD, OUT_OF_THE_WAY) for _, fd in fds]
    for number, fd in enumerate(above, FIRST):
        os.dup2(fd, number)
    close_range(FIRST + len(fds), LAST_DESCRIPTOR)
    listen = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds))}
    os.environ.update(listen | {"LISTEN_FDNAMES": ":".join(name for name, _ in fds)} | dict(environment))
    os._exit(main())


