"""Reopening the files that services write to, after log files have been moved away from their paths.

A child of spawnd that freezes or stops processes notes them in a file of the run-time folder
(`process/rotation.py`), and keeps a lock on that file for as long as it lives. A child that outlives its
spawnd finishes its work and releases the processes itself. The processes of a child that was killed are
released by the next spawnd.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from supervisor.definitions.service import Slot
from supervisor.lifecycle.transaction import Outcome
from supervisor.linux.descriptors import close_range, memfd
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop
from supervisor.manager.inspection import Sights, inspect_paths, marks_of, still_seen
from supervisor.manager.manager import Manager
from supervisor.manager.unit import Unit
from supervisor.process import rotation
from supervisor.process.child_descriptors import gaps
from supervisor.process.children import Exit
from supervisor.process.failure import failure_of
from supervisor.process.fork import default_signals, fork
from supervisor.process.held_descriptors import Opened
from supervisor.process.rotation import Hold, begin_anew
from supervisor.process.run import Role, Run

PAUSE = 1.0  # seconds between two checks whether such a child has ended
TIME_LIMIT = 600.0  # seconds; the output written meanwhile is copied within them
READ = frozenset({"r"})
NO_FILES = (
    "no file of its table is written to: a service that opens its log itself reopens it by a signal, see "
    "`spawnctl signal`, and log() needs no rotation"
)
Done = Callable[[Outcome], None]


def writes(unit: Unit) -> dict[Slot, Opened]:
    """Return the files that a service writes to by descriptors of its table, by slot."""
    return {
        slot: opened
        for slot, opened in unit.table
        if opened.spec.kind == "file" and opened.spec.access not in READ and opened.inode is not None
    }


class Reopening:
    """The reopening of the files of one service; calls `done` once, from the loop."""

    def __init__(self, manager: Manager, unit: Unit, done: Done) -> None:
        self._manager = manager
        self._unit = unit
        self._done = done
        self._report = self._note = -1
        if not writes(unit):
            manager.loop.call_soon(partial(done, Outcome(False, NO_FILES)))
            return
        inspect_paths(manager.loop, manager.children, marks_of([unit]), self._looked)

    def _looked(self, sights: Sights) -> None:
        unit = self._unit
        files = {slot: opened for slot, opened in writes(unit).items() if slot in still_seen(unit, sights)}
        if not files:
            self._done(Outcome(True, "its files are at their paths"))
        elif unit.run is None:
            unit.renew({slot: sight for slot, sight in still_seen(unit, sights).items() if slot in files})
            self._done(Outcome(True, "opened anew"))
        elif unit.run.role is not Role.MAIN:
            self._done(Outcome(False, "it is about to start or to stop"))
        elif unit.run.in_doubt:
            self._done(Outcome(False, "its process does not show whether it is still the same"))
        else:
            self._begin(list(files.values()), unit.run)

    def _begin(self, files: list[Opened], run: Run) -> None:
        cgroup = self._unit.cgroup
        try:
            self._note = make_note(self._manager.host.runtime.note_path(self._unit.name))
            self._report = memfd("reopen", b"")
            hold = (
                partial(rotation.frozen, self._note, cgroup.path)
                if cgroup is not None
                else partial(rotation.stopped, self._note, run.pid, run.started)
            )
            kept = [self._note, self._report, *(opened.fd for opened in files)]
            child = fork(lambda: _reopen(files, hold, self._note, self._report), kept)
        except FileExistsError:
            self._done(Outcome(False, "its files are being reopened already"))
            return
        except OSError as error:
            self._close()
            self._done(Outcome(False, f"cannot begin: {error.strerror}"))
            return
        self._timer = self._manager.loop.call_later(TIME_LIMIT, partial(os.kill, child, signal.SIGKILL))
        self._manager.children.register(child, self)

    # as a child

    def died(self, pid: int) -> None:
        """Do nothing yet: the report is complete when the child is reaped."""

    def reaped(self, pid: int, exit: Exit) -> None:
        self._timer.cancel()
        with open(self._report, "rb", closefd=False) as file:
            file.seek(0)
            data = file.read()
        if not data:  # the child was killed and may not have released the processes
            rotation.let_go(self._note)
        self._close()
        if not data:
            self._done(Outcome(False, f"the process that reopens files {exit.describe()}"))
            return
        paths, problems = json.loads(data)
        if paths:
            notice("%s: begun anew: %s", self._unit.name, ", ".join(paths))
        if problems:
            hint = f"`spawnctl restart {self._unit.name}` opens it anew"
            self._done(Outcome(False, "; ".join([*problems, hint])))
        else:
            self._done(Outcome(True, f"reopened {', '.join(paths)}"))


    def _close(self) -> None:
        """Close the descriptors and remove the note, which names no held process any more."""
        if self._note >= 0:
            os.close(self._note)
            with suppress(OSError):
                os.unlink(self._manager.host.runtime.note_path(self._unit.name))
        if self._report >= 0:
            os.close(self._report)


def _reopen(files: list[Opened], hold: Hold, note: int, report: int) -> None:
    default_signals()
    for first, last in gaps({0, 1, 2, note, report, *(opened.fd for opened in files)}):
        close_range(first, last)
    paths, problems = [], []
    for opened in files:
        try:
            begin_anew(opened.fd, opened.spec.path, hold)
        except Exception as error:
            problems.append(str(failure_of(error)))
        else:
            paths.append(opened.spec.path)
    os.write(report, json.dumps([list(dict.fromkeys(paths)), list(dict.fromkeys(problems))]).encode())
    os._exit(0)


def make_note(path: str) -> int:
    """Return a locked, empty file; the caller owns the descriptor.

    Raises OSError, with EEXIST if another child still has such a file.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def let_go_of_all(loop: Loop, paths: Iterable[str]) -> None:
    """Release the processes named by the files at `paths`, each as soon as no child holds the lock on it."""
    for path in paths:
        _look(loop, path)


def _look(loop: Loop, path: str) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        log.warning("cannot let go of the processes that %r tells of: %s", path, error.strerror)
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if rotation.let_go(fd):
            name = os.path.basename(path).partition(":")[2]
            notice("%s: goes on: a reopening of its files was killed while it held its processes", name)
        with suppress(OSError):
            os.unlink(path)
    except BlockingIOError:
        loop.call_later(PAUSE, partial(_look, loop, path))
    finally:
        os.close(fd)
