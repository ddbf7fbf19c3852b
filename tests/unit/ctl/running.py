"""spawnctl as a process of its own, for verbs that go on."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.unit.waiting import DEADLINE, read_until

ROOT = str(Path(__file__).parents[3])
# tests that a shell has put into the background ignore INT, and so would what they start
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from supervisor.ctl.main import main; sys.exit(main())"
)


class Running:
    """A spawnctl whose output is read as it comes; killed in the end if it still runs."""

    def __init__(self, path: str, *arguments: str) -> None:
        self._rest = b""
        self._said = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--socket", path, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            bufsize=0,
        )
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._process.kill()
        said = self._process.communicate()[1]
        if error is not None:
            error.add_note(f"spawnctl said: {said.decode()}")

    def text(self, end: str) -> str:
        """Return the output up to `end`."""
        last = end.encode()
        if last not in self._rest:
            self._rest += read_until(self._out, lambda data: last in self._rest + data)
        at = self._rest.index(last) + len(last)
        text, self._rest = self._rest[:at], self._rest[at:]
        return text.decode()

    def line(self) -> str:
        return self.text("\n")

    def row(self) -> dict[str, Any]:
        """A line of JSON."""
        value: dict[str, Any] = json.loads(self.line())
        return value

    def error_fd(self) -> int:
        """Where what it says on stderr comes."""
        assert self._process.stderr is not None
        return self._process.stderr.fileno()

    def has_output(self) -> bool:
        """Whether there is something to read."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        return bool(self._rest or poll.poll(0))

    def close_output(self) -> None:
        """Nobody reads any more."""
        assert self._process.stdout is not None
        self._process.stdout.close()

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        code, _out, self._said = self.wait()
        return code

    def said(self) -> str:
        """Return stderr up to the interrupt."""
        return self._said

    def wait(self) -> tuple[int, str, str]:
        """Its exit code, the rest of its output and what it said on stderr."""
        out, error = b"", b""
        if self._process.stdout is not None and self._process.stdout.closed:
            self._process.wait(DEADLINE)
            assert self._process.stderr is not None
            error = os.read(self._process.stderr.fileno(), 65536)
        else:
            out, error = self._process.communicate(timeout=DEADLINE)
        return self._process.returncode, (self._rest + out).decode(), error.decode()
