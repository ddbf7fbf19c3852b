"""Starts a program the way the supervisor does, without the supervisor."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Sequence
from pathlib import Path

SHIPPED = Path(__file__).parents[3] / "conf/examples"
NOBODY = 65534
FIRST_FREE = 100  # descriptors from here up are in nobody's way


class Program:
    """A running program: its own descriptors from 3 up, no environment, user nobody where the test is root.

    Owns the process.  The descriptors stay the caller's, who can give them to the next one.
    """

    def __init__(self, path: Path, fds: Sequence[int], cwd: Path | str = "/", stderr: int | None = None) -> None:
        argv = ["/usr/bin/env", "-i", "-C", str(cwd)]
        if os.geteuid() == 0:
            argv += ["/usr/bin/setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        ]
        sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for fd in fds]
        actions += [(os.POSIX_SPAWN_DUP2, source, 3 + number) for number, source in enumerate(sources)]
        if stderr is not None:
            actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
        try:
            self.pid = os.posix_spawn(argv[0], [*argv, str(path)], {}, file_actions=actions)
        finally:
            for source in sources:
                os.close(source)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end; return the exit code as `subprocess` counts it."""
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def kill(self) -> None:
        if self.pid:
            self.signal(signal.SIGKILL)
            self.wait()
