"""A spawnctl that goes on, of the installed command, for tests of the real daemon."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from types import TracebackType
from typing import Any

from tests.daemon import BIN, PATIENCE, Daemon


class Following:
    """Its output is read line by line, each awaited; killed in the end if it still runs."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        self._rest = b""
        self.process = subprocess.Popen(
            [str(BIN / "spawnctl"), "--socket", str(daemon.socket), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )

    def __enter__(self) -> Following:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """The next line; '' at the end."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        while b"\n" not in self._rest:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(f"no line after {self._rest!r}")
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                break
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def row(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.line())
        return value

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)
