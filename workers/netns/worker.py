"""One network namespace from its making to its removal.

    work → (setup script → work) → ready; on an event: work

Forked tasks do all observing and making, one at a time. So this process, which exists once per namespace,
imports next to nothing: each module would take a tenth of a megabyte of its own. Everything that it makes
outlives it, and the next worker takes it over. A worker that ends removes nothing unless it is told to stop.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.notify.service_side import Sender
from workers.netns.forked_task import ForkedTask, Outcome

END_LIMIT = 15.0  # seconds to end the leftovers of a failed script
WORK_LIMIT = 30.0  # seconds in which a task has to use CPU time; the script has its own limit
AT_ONCE = 64  # messages in a turn of the loop
LONGEST_MESSAGE = 1 << 15
STORE = ("FDSTORE=1", "FDNAME=record", "FDPOLL=0")
Options = dict[str, Any]
SEND_AGAIN = 1.0  # seconds until the next attempt to send a message
MOST_WAITING = 64  # messages; older ones are obsolete
SETTLE = 0.02  # seconds: parts that are removed together are repaired together
EVERY = 0.25  # seconds from one look to the next: a program may keep changing things
BURST = 10  # repairs in a row without a delay
FIRST = 0.5  # seconds of the first delay
LONGEST = 30.0
CALM = 60.0  # seconds without a repair after which counting starts again


class Reports:
    """Messages to spawnd, in order; they are queued while no spawnd receives them.

    Owns its socket. Descriptors that are sent along stay open and belong to the caller.
    """

    def __init__(self, loop: Loop, sender: Sender) -> None:
        self._loop = loop
        self._sender = sender
        self._waiting: deque[tuple[tuple[str, ...], Sequence[int]]] = deque(maxlen=MOST_WAITING)
        self._timer: Timer | None = None

    def send(self, *lines: str, fds: Sequence[int] = ()) -> None:
        if self._sender.leads_somewhere:
            self._waiting.append((lines, fds))
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            lines, fds = self._waiting[0]
            if not self._sender.send_nowait(*lines, fds=fds):
                if self._timer is None:
                    self._timer = self._loop.call_later(SEND_AGAIN, self._try_again)
                return
            self._waiting.popleft()

    def _try_again(self) -> None:
        self._timer = None
        self._flush()


class RepairBackoff:
    """Delay of repairs: none at first, growing while another program keeps removing everything."""

    def __init__(self) -> None:
        self._begun = float("-inf")
        self._in_a_row = 0
        self._last = float("-inf")

    def begins(self, now: float) -> None:
        """Note the begin of a look."""
        self._begun = now

    def repaired(self, now: float) -> None:
        """Note the end of a repair, successful or not."""
        self._in_a_row = 1 if now - self._last > CALM else self._in_a_row + 1
        self._last = now

    def due(self, now: float) -> float:
        """Return the time of the next look, and so of a repair."""
        soon = max(now + SETTLE, self._begun + EVERY)
        excess = self._in_a_row - BURST
        if now - self._last > CALM or excess < 0:
            return soon
        return max(soon, self._last + min(LONGEST, FIRST * (1 << min(excess, 10))))


class Worker:
    """Owns the current task and the socket that reports changes. `record` is the memory file.

    `exit_status` is that of the worker once the loop has stopped.
    """

    def __init__(self, loop: Loop, options: Options, record: int, reports: Reports) -> None:
        self.exit_status = os.EX_OK
        self._loop = loop
        self._options = options
        self._record = record
        self._reports = reports
        self._path = f"/run/netns/{options['name']}"
        self._label = f"netns@{options['name']}"
        self._is_ready = False
        self._is_stopping = False
        self._reloads = False
        self._again = False  # something has happened since the current task began
        self._is_unfinished = False  # the link is new, and its setup script has to finish
        self._task: ForkedTask | None = None
        self._watched: tuple[int, ...] = ()
        self._watch = -1
        self._names = -1
        self._timer: Timer | None = None
        self._backoff = RepairBackoff()

    def start(self) -> None:
        self._reports.send(*STORE, fds=[self._record])
        self._work()

    def unexpected(self, error: BaseException) -> None:
        """Log a defect; before the worker is ready also end it, because it would never become ready."""
        log.error("%s: unexpected error", self._label, exc_info=error)
        if not self._is_ready:
            self.exit_status = 1
            self._loop.stop()

    # orders

    def reload(self) -> None:
        """Set up anew, with the script, and report when that is done."""
        if self._is_stopping:
            return
        self._reloads = True
        self._reloading()
        if self._task is None:
            self._work()

    def _reloading(self) -> None:
        """Report the reload; services that need this one check their namespace when it is ready again."""
        self._reports.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def leave(self) -> None:
        """End, and leave everything to the next worker, unless an order to stop arrives at the same time."""
        if not self._is_stopping:
            self._drop()
            self._loop.call_soon(lambda: None if self._is_stopping else self._loop.stop())

    def stop(self) -> None:
        """Remove link and namespace, and end."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._drop()
        self._listen(-1)  # a socket keeps the namespace alive
        self._remove(_remove)

    def _drop(self) -> None:
        """Drop the current task and timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.stop()
            self._task = None

    # the work

    def _run(
        self,
        what: str,
        function: Callable[[], Any],
        limit: float,
        done: Callable[[Outcome], None],
        slow: Callable[[], None] | None = None,
    ) -> None:
        def ended(outcome: Outcome) -> None:
            self._task = None
            done(outcome)

        self._again = False
        try:
            self._task = ForkedTask(self._loop, what, function, limit, ended, slow)
        except OSError as error:
            done(Outcome(problem=f"cannot begin with {what}: {error.strerror}"))

    def _work(self, is_script_done: bool = False) -> None:
        """Observe everything, and make the missing parts."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._backoff.begins(self._loop.clock())
        run_script, self._reloads = self._reloads, False
        how = {"is_ready": self._is_ready, "runs_script": run_script, "ran_script": is_script_done}
        work = partial(_work, self._options, self._record, self._watched, self._watch, **how)
        self._run("setting up", work, WORK_LIMIT, self._worked, self._slow)

    def _slow(self) -> None:
        """Ask spawnd for more time: the task makes progress, but the machine is busy."""
        log.warning("%s: it takes longer than %g s; going on", self._label, WORK_LIMIT)
        self._reports.send(f"EXTEND_TIMEOUT_USEC={int(2 * WORK_LIMIT * 1_000_000)}")

    def _worked(self, outcome: Outcome) -> None:
        if outcome.problem:
            self._failed(outcome.problem)
            return
        work = outcome.value
        if outcome.fd >= 0:
            if self._is_ready and work["watched"][:2] != self._watched[:2]:
                self._reloading()  # another namespace has the name
            self._watched = work["watched"]
            self._listen(outcome.fd)
        if work["did"]:
            self._backoff.repaired(self._loop.clock())
        self._is_unfinished = self._is_unfinished or work["made_link"]
        if work["script"]:
            log.info("%s: running %s", self._label, work["script"])
            run = os.urandom(8).hex()
            limit = work["script_limit"]
            script = partial(_run_script, self._options, work["script"], run, limit)
            self._run(work["script"], script, limit + END_LIMIT, partial(self._script_ended, run))
        elif self._reloads:
            self._work()
        elif work["missing"]:
            self._changed()  # removed before it was watched
        else:
            self._settled(work["status"])

    def _script_ended(self, run: str, outcome: Outcome) -> None:
        if not outcome.problem:
            self._work(is_script_done=True)
            return
        failed = partial(self._script_failed, outcome.problem)
        self._run("ending what the script has left", partial(_end_run, self._options["name"], run), WORK_LIMIT, failed)

    def _script_failed(self, problem: str, left: Outcome) -> None:
        if left.problem:
            log.error("%s: %s", self._label, left.problem)
        if self._is_ready and not self._is_unfinished:
            log.error("%s: %s", self._label, problem)
            self._settled(problem)  # the previous set-up still exists
        else:
            self._failed(problem)

    def _settled(self, status: str) -> None:
        self._is_ready = True
        self._is_unfinished = False
        # stored again, because the first message may have been lost with an earlier spawnd
        self._reports.send("READY=1", f"STATUS={status}", *STORE, fds=[self._record])
        if self._again or self._reloads:
            self._changed()

    def _failed(self, problem: str) -> None:
        """Handle a failure: a failed start is undone; after that everything stays, and the work is tried again."""
        log.error("%s: %s", self._label, problem)
        self._reports.send(*(["READY=1"] if self._is_ready else []), f"STATUS={problem}")
        if self._is_ready:
            self._backoff.repaired(self._loop.clock())
            self._changed()
        else:
            self.exit_status = 1
            self._remove(_remove_made)

    def _remove(self, function: Callable[[Options, int], list[str]]) -> None:
        self._run("removing", partial(function, self._options, self._record), WORK_LIMIT, self._removed, self._slow)

    def _removed(self, outcome: Outcome) -> None:
        for problem in [outcome.problem] if outcome.problem else outcome.value:
            log.error("%s: %s", self._label, problem)
            self.exit_status = 1
        self._loop.stop()

    # watching

    def _listen(self, fd: int) -> None:
        """Receive changes from this socket from now on, and removed names of namespaces; -1: receive none."""
        if self._watch >= 0:
            self._loop.unwatch(self._watch)
            os.close(self._watch)
        self._watch = fd
        if fd >= 0:
            self._loop.watch(fd, select.EPOLLIN, lambda _events: self._heard())
        if fd >= 0 and self._names < 0:
            # not inotify: a user has 128 instances, and there is a worker for each namespace
            self._names = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._loop.on_signal(signal.SIGIO, self._name_has_gone)
            fcntl.fcntl(self._names, fcntl.F_NOTIFY, fcntl.DN_DELETE | fcntl.DN_MULTISHOT)

    def _heard(self) -> None:
        """Handle a change of a watched object; a look finds out what it is."""
        for _ in range(AT_ONCE):
            try:
                os.read(self._watch, LONGEST_MESSAGE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # messages were lost: also a reason to look
                    raise
        self._changed()

    def _name_has_gone(self) -> None:
        """Handle the removal of a namespace's name, perhaps that of this one."""
        try:
            found = os.stat(self._path)
            is_there = (found.st_dev, found.st_ino) == self._watched[:2]
        except OSError:
            is_there = False
        if not is_there:
            self._changed()

    def _changed(self) -> None:
        """Schedule a look: something may have been removed."""
        if self._task is not None:
            self._again = True
        elif self._timer is None:
            self._timer = self._loop.call_at(self._backoff.due(self._loop.clock()), self._work)


# in the tasks


def _work(options: Options, record: int, watched: tuple[int, ...], watch: int, **how: bool) -> Any:
    from workers.netns.work import work

    return work(options, record, watched, watch, **how)


def _run_script(options: Options, path: str, run: str, limit: float) -> None:
    from workers.netns.script import run_script

    run_script(options, path, run, limit)


def _end_run(name: str, run: str) -> None:
    from workers.netns.remove import end_run

    end_run(name, run)


def _remove(options: Options, _record: int) -> list[str]:
    from workers.netns.plan import read_plan
    from workers.netns.remove import remove

    return remove(read_plan(options))


def _remove_made(options: Options, record: int) -> list[str]:
    from workers.netns.plan import read_plan
    from workers.netns.record import Record
    from workers.netns.remove import remove_made

    return remove_made(read_plan(options), Record(record))
