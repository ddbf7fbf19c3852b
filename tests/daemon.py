"""A real spawnd for tests and benchmarks: definitions of its own, a run-time folder of its own."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from supervisor.linux.glance import read_file
from tests import spawnctl

T = TypeVar("T")
# In a machine the processor is emulated, and a look takes time of the only one.
IN_MACHINE = "MACHINE" in os.environ
PATIENCE = 60.0  # seconds that a condition may take on a busy machine
PAUSE = 0.05 if IN_MACHINE else 0.01  # seconds between the first two looks
LONGEST_PAUSE = 0.05
BIN = Path(sys.executable).parent


def wait_until(condition: Callable[[], T], what: str, patience: float = PATIENCE, pause: float | None = None) -> T:
    """Wait until the condition is true and return what it said.  Raises TimeoutError naming `what`.

    A look takes the time of spawnd as well.  So a pause, where none is given, is a tenth of the time so far, and each
    is at least as long as the look before it.
    """
    start = time.monotonic()
    while True:
        begun = time.monotonic()
        result = condition()
        if result:
            return result
        now = time.monotonic()
        if now > start + patience:
            raise TimeoutError(f"{what}: not within {patience:g} s")
        usual = max(PAUSE, min((now - start) / 10, LONGEST_PAUSE)) if pause is None else pause
        time.sleep(max(usual, now - begun))


class Daemon:
    """spawnd in the foreground, as a context manager.  Ends it, and kills what is left of it by its own pids.

    What a spawnd that was lost has left behind is no descendant of anybody here: those are
    remembered by pid and start time, and ended with the rest.
    """

    def __init__(self, folder: Path, definitions: str, *options: str, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.runtime = folder / "run"
        self.socket = self.runtime / "control"
        self.definitions = folder / "services.lua"
        self.definitions.write_text(definitions)
        self.log_path = folder / "log"
        self.prefix: list[str] = []  # a command that executes the rest of its arguments, as `setpriv` does
        self.program = str(BIN / "spawnd")
        self._options = options
        self._env = env or {}
        self._survivors: dict[int, int] = {}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self) -> list[str]:
        config = ["--config", str(self.definitions)]
        return [*self.prefix, self.program, *config, "--runtime-dir", str(self.runtime), *self._options]

    def start(self) -> Daemon:
        """Start it; it may not be ready yet."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self._env}
            )
        return self

    def __enter__(self) -> Daemon:
        self.start()
        try:
            wait_until(lambda: self.listens() or self.ended(), "the control socket")
            self._look_alive()
        except BaseException:
            self.kill()
            raise
        return self

    def _look_alive(self) -> None:
        if self.ended():
            raise RuntimeError(f"spawnd ended with status {self.process and self.process.returncode}:\n{self.log()}")

    def lose(self) -> None:
        """kill -9 of spawnd alone: all that it has started lives on, and is remembered."""
        assert self.process is not None
        self.signal(signal.SIGSTOP)  # so that it starts nothing that would not be known
        wait_until(lambda: process_state(self.pid) == "T", "spawnd to be stopped")
        self.remember(descendants(self.pid))
        self.process.kill()
        self.process.wait()

    def remember(self, pids: Iterable[int]) -> None:
        """Have these processes ended with the rest, should they still be there."""
        self._survivors |= {pid: started for pid in pids if (started := start_time(pid)) is not None}

    def again(self) -> Daemon:
        """Start it anew on the same folder, and wait until it answers."""
        self.start()
        wait_until(lambda: self.answers() or self.ended(), "an answer")
        self._look_alive()
        return self

    def listens(self) -> bool:
        """Whether clients can connect to the control socket; spawnd may not answer yet."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, suppress(OSError):
            client.connect(str(self.socket))
            return True
        return False

    def answers(self) -> bool:
        """Whether spawnd answers a call on its control socket."""
        with suppress(OSError, ValueError):
            return "parameters" in call(self.socket, "GetVersion", timeout=PATIENCE)
        return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop() if kind is None else self.kill()
        if error is not None:
            error.add_note(f"spawnd's log:\n{self.log()[-8000:]}")

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def stop(self, patience: float = PATIENCE) -> int:
        """TERM, and its exit status."""
        assert self.process is not None
        try:
            if not self.ended():
                self.signal(signal.SIGTERM)
            return self.process.wait(patience)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and all that it or one before it has started, whatever state they are in."""
        if self.process is not None and not self.ended():
            self.remember(descendants(self.pid))
            self.process.kill()
            self.process.wait()
        wait_until(self._no_survivors, "the end of what it left")

    def _no_survivors(self) -> bool:
        """Kill those that are left, with what they have forked since the loss; whether there are none."""
        alive = self.survivors()
        self.remember(pid for known in alive for pid in descendants(known))
        for pid in self.survivors():
            kill_process(pid, self._survivors[pid])
        return not alive

    def survivors(self) -> list[int]:
        """Those that a lost spawnd left behind and that are still alive."""
        return [pid for pid, started in self._survivors.items() if start_time(pid) == started]

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_log(self, text: str, patience: float = PATIENCE) -> None:
        wait_until(lambda: text in self.log(), f"{text!r} in the log", patience)

    # the operator's side

    def ctl(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run spawnctl, and return its exit status and output."""
        return spawnctl.run(["--socket", str(self.socket), *arguments], timeout)

    def services(self) -> dict[str, dict[str, Any]]:
        """The rows of `List` by name, without what is built in: what `spawnctl list --json` prints."""
        reply = call(self.socket, "List", names=[])
        assert "parameters" in reply, reply
        return {row["name"]: row for row in reply["parameters"]["services"] if not row["internal"]}

    def state(self, name: str) -> str:
        return str(self.services()[name]["state"])

    def pid_of(self, name: str) -> int | None:
        pid: int | None = self.services()[name]["pid"]
        return pid

    def wait_running(self, name: str, other_than: int | None = None) -> int:
        """The pid of a service that runs its program, with all its set-up behind it."""

        def found() -> int | None:
            row = self.services().get(name, {})  # state and pid of one moment: a check or a function has a pid as well
            pid: int | None = row.get("pid")
            return pid if row.get("state") == "running" and pid != other_than else None

        pid = self._wait(found, name, "running")
        assert pid is not None
        return pid

    def wait_pid(self, name: str, other_than: int | None = None) -> int:
        """The pid of a service as soon as it has one, which is not `other_than`; it may still be setting itself up."""

        def found() -> int | None:
            pid = self.pid_of(name)
            return pid if pid != other_than else None

        pid = self._wait(found, name, "has a process")
        assert pid is not None
        return pid

    def wait_state(self, name: str, state: str, patience: float = PATIENCE) -> None:
        self._wait(lambda: self.services().get(name, {}).get("state") == state, name, state, patience)

    def _wait(self, condition: Callable[[], T], name: str, what: str, patience: float = PATIENCE) -> T:
        """Like `wait_until`; the TimeoutError also tells the state of the service, and why it is in it."""
        try:
            return wait_until(condition, f"{name} {what}", patience)
        except TimeoutError as error:
            state = self.services().get(name, {}).get("state", "not defined")
            why = self.ctl("why", name)
            raise TimeoutError(f"{error}; it is {state}: {(why.stdout + why.stderr).strip()}") from None


def call(path: Path, method: str, /, timeout: float = 60, **parameters: object) -> dict[str, Any]:
    """Return the reply to one call of `io.spawnd.METHOD`, on a connection that spawnd has closed by then.

    Raises OSError, ValueError.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        client.connect(str(path))
        client.sendall(encode_call(method, **parameters))
        reply = receive(client, 65536)
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
        pid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    # its end is shut down before it is closed: it has been closed once spawnd waits again
    with suppress(TimeoutError):
        wait_until(lambda: process_state(pid) != "R", "spawnd to wait", patience=0.2, pause=0.001)
    return reply


def encode_call(method: str, /, **parameters: object) -> bytes:
    return json.dumps({"method": f"io.spawnd.{method}", "parameters": parameters}).encode() + b"\0"


def receive(client: socket.socket, at_once: int = 1) -> dict[str, Any]:
    """Return the next reply, read `at_once` bytes at a time: more than 1 where no other reply can follow it.

    Raises OSError, ValueError where the connection ends before it.
    """
    data = b""
    while not data.endswith(b"\0"):
        chunk = client.recv(at_once)
        if not chunk:
            raise ValueError(f"closed after {data!r}")
        data += chunk
    reply: dict[str, Any] = json.loads(data[:-1])
    return reply


def stat_fields(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` from the third on, none where the process is gone.

    Raises TimeoutError where the process shows them to nobody, as in an execve that does not end.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return read_file(f"/proc/{pid}/stat").decode(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return []
        except OSError as error:
            if error.errno not in (errno.ETIMEDOUT, errno.EBUSY):
                raise
            if time.monotonic() > end:
                raise TimeoutError(f"process {pid} does not show its state") from error


def process_state(pid: int) -> str:
    """The state of a process as `ps` shows it, '' where it is gone: in a file that is shown without waiting."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return status.partition("\nState:\t")[2][:1]


def start_time(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None where it has ended."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def kill_process(pid: int, started: int) -> None:
    """KILL to a process that is known by its start time, and to no other that has its pid now."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            if start_time(pid) == started:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in text.split()]


def descendants(pid: int) -> list[int]:
    found = children(pid)
    for child in list(found):
        found += descendants(child)
    return found


def command_name(pid: int) -> str:
    """The kernel's name of a process, '' where it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""
