"""Executing the installed version of spawnd in the same process, which keeps everything it has.

A trial comes first: a child executes that version with copies of everything that it would get. The child
restores it all, waits a second, says so and does nothing else; if it fails, its output says why. Once no evaluation
runs any more, `exec` follows. Children stay children, descriptors keep their numbers, and signals that arrive
meanwhile stay pending. A failure before the new program runs changes nothing.

The kernel closes descriptors that the new program does not get, including connections of clients that may contain
descriptors, and a last close may block. So a child holds copies of all descriptors until the new program runs.

Each close of a file with a server (FUSE, NFS) may block, so trial and holder have no copies of these where there is
another way; the trial gets `/dev/null` instead.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

import prctl

from supervisor.linux.descriptors import memfd
from supervisor.linux.signal_mask import block_all, set_mask
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop
from supervisor.manager.supervisor import Supervisor
from supervisor.notify.untrusted import LocalFileSystems, is_file, is_open, target
from supervisor.origin import RESUME, TRIAL
from supervisor.process.children import Children, Exit, watched_pipe
from supervisor.process.failure import failed
from supervisor.process.fork import default_signals, fork
from supervisor.state.state import Record, encode

TRIAL_LIMIT = 30.0  # seconds
KILL_LIMIT = 2.0  # seconds until a killed trial is given up
MAX_OUTPUT = 1 << 16  # bytes
TRIED = b"\0"  # a trial's last word after a success; an earlier version only ends
Done = Callable[[str], None]


class Reexec:
    """The exec. `records` returns the complete state with its descriptors, `lock` a descriptor for the exec alone.

    `about_to(True)` is called right before the exec, `about_to(False)` after its failure. `supervisor` has to
    be set before `begin`.
    """

    supervisor: Supervisor

    def __init__(
        self,
        loop: Loop,
        children: Children,
        program: Sequence[str],
        records: Callable[[], tuple[list[Record], Iterable[int]]],
        lock: Callable[[], int],
        about_to: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._children = children
        self._program = program
        self._records = records
        self._lock = lock
        self._about_to = about_to
        self._asked: list[Done] = []

    def begin(self, done: Done) -> None:
        """Run the trial, then the exec. `done` gets the problem; after a success this process runs another program."""
        self._asked.append(done)
        if len(self._asked) > 1:
            return
        if self.supervisor.manager.shutting_down:
            self._failed(["everything is being stopped"])
            return
        notice("trying %s before it is executed", self._program[-1])
        try:
            records, fds = self._records()
            Trial(
                self._loop,
                self._children,
                [*self._program, TRIAL, RESUME],
                b"".join(map(encode, records)),
                fds,
                self._file_systems.others(fds),
                self._tried,
            )
        except Exception as error:
            self._failed([f"{type(error).__name__}: {error}"])

    @property
    def _file_systems(self) -> LocalFileSystems:
        return self.supervisor.manager.host.closer.file_systems

    def _tried(self, said: list[str]) -> None:
        if said:
            self._failed(said)
        else:
            self.supervisor.hold(self._execute)

    def _failed(self, said: list[str]) -> None:
        for line in said[:-1]:
            log.error("trial: %s", line)
        asked, self._asked = self._asked, []
        problem = f"not executed anew: {' '.join(said[-2:])}"
        log.error("%s", problem)
        for done in asked:
            done(problem)

    def _execute(self) -> None:
        """Execute the new program; return only after a failure."""
        if self.supervisor.manager.shutting_down:
            self.supervisor.changes.evaluations.release()
            self._failed(["everything is being stopped"])
            return
        self._about_to(True)
        before = block_all()
        signals = self._loop.take_signals()
        fds: list[int] = []
        held = -1
        try:
            self.supervisor.manager.let_go()
            self.supervisor.writer.flush()
            records, numbers = self._records()
            state = b"".join(map(encode, [*records, {"signals": signals}]))
            fds = [*numbers, self._lock(), memfd("spawnd-state", state)]
            for fd in fds:
                os.set_inheritable(fd, True)
            served = self._file_systems.others(open_numbers())
            for fd in served.difference(fds):
                raise failed("close", target(fd), 0, "its server may never answer, and an exec would wait for it")
            held = hold_all(fds, served, self._children)
            os.execv(self._program[0], [*self._program, RESUME, str(fds[-1])])  # noqa: S606  # our own program
        except Exception as error:
            for fd in fds:
                os.set_inheritable(fd, False)
            if fds:
                os.close(fds[-1])
            if held >= 0:
                os.close(held)
            self._loop.give_signals(signals)
            set_mask(before)
            self._about_to(False)
            self.supervisor.changes.evaluations.release()
            self._failed([f"{type(error).__name__}: {error}"])


def open_numbers() -> list[int]:
    return list(filter(is_open, map(int, os.listdir("/proc/self/fd"))))


def hold_all(saved: Collection[int], served: Collection[int], children: Children) -> int:
    """Start a child that has copies of all descriptors until this process has executed another program.

    It has none of those `served`, unless it may not trace. It keeps them until the returned descriptor is closed,
    which an exec does last. Then it releases the `saved` descriptors first, sockets and pipes before files: if the
    server of a file hangs, the child must not hold the addresses of others. Raises OSError.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        numbers = [fd for fd in open_numbers() if fd != write_end]
        last = fcntl.fcntl(write_end, fcntl.F_DUPFD_CLOEXEC, max(*numbers, write_end) + 1)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    try:
        kept = [fd for fd in numbers if fd > 2 and fd not in served] if served else None
        pid = fork(lambda: _hold(read_end, last, saved), kept)
    except BaseException:
        os.close(last)
        raise
    finally:
        os.close(read_end)
    children.when_reaped(pid, lambda: None)
    return last


def _hold(read_end: int, last: int, saved: Collection[int]) -> None:
    with suppress(OSError):  # it may have no copy
        os.close(last)
    os.read(read_end, 1)
    close_but_files(saved)
    os._exit(0)


def close_but_files(fds: Iterable[int]) -> None:
    """Close descriptors before an exit, which may wait for the server of a file and must not keep the others open."""
    for fd in fds:
        if not is_file(fd):
            with suppress(OSError):  # an error closes it as well, and the others have to be closed
                os.close(fd)


class Trial:
    """Runs `command` with the number of a memfd that holds `state` as its last argument.

    `fds` are inherited under their numbers, those `served` as `/dev/null`. `done` is called once, with nothing or
    with the child's lines about its failure. A child that is late may never end, as where the server of a file does
    not answer: without the right to trace, it has copies of those, too.
    """

    def __init__(
        self,
        loop: Loop,
        children: Children,
        command: Sequence[str],
        state: bytes,
        fds: Iterable[int],
        served: Collection[int],
        done: Callable[[list[str]], None],
    ) -> None:
        self._loop = loop
        self._done = done
        self._output = bytearray()
        self._failure = ""
        state_fd = memfd("spawnd-trial", state)
        try:
            spawnd = os.getpid()
            with watched_pipe(loop, lambda _events: self._read()) as (self._read_fd, write_fd):
                kept = [state_fd, write_fd, *(fd for fd in fds if fd not in served)] if served else None
                self._pid = fork(lambda: _execute(spawnd, command, state_fd, fds, write_fd), kept)
        finally:
            os.close(state_fd)
        children.register(self._pid, self)
        self._timer = loop.limit_later(TRIAL_LIMIT, self._too_long)

    def _read(self) -> None:
        try:
            while data := os.read(self._read_fd, 4096):
                self._output += data
                del self._output[:-MAX_OUTPUT]
        except BlockingIOError:
            if self._output.endswith(TRIED):
                self._end("")
            return
        self._loop.unwatch(self._read_fd)

    def _too_long(self) -> None:
        self._failure = f"not ready after {TRIAL_LIMIT:g} s"
        os.kill(self._pid, signal.SIGKILL)
        self._timer = self._loop.limit_later(KILL_LIMIT, lambda: self._end(self._failure))

    def died(self, pid: int) -> None:
        if self._read_fd >= 0:
            self._read()

    def reaped(self, pid: int, exit: Exit) -> None:
        if self._read_fd >= 0:
            self._end("" if exit == Exit() else self._failure or exit.describe())

    def _end(self, failure: str) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._read_fd)
        os.close(self._read_fd)
        self._read_fd = -1
        said = self._output.decode(errors="backslashreplace").splitlines()
        self._done([*said, failure] if failure else [])


def _execute(spawnd: int, command: Sequence[str], state_fd: int, fds: Iterable[int], write_fd: int) -> None:
    # a child that outlives spawnd would keep its lock, and no process would end a child that hangs
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != spawnd:
        return
    default_signals()
    for fd in (1, 2):
        os.dup2(write_fd, fd)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (state_fd, *fds):
        if not is_open(fd):
            os.dup2(null, fd)
        os.set_inheritable(fd, True)
    environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    os.execve(command[0], [*command, str(state_fd)], environment)  # noqa: S606  # our own program
