"""The netns worker: keeps one network namespace.

TERM removes link and namespace, USR1 (a restart) leaves them to the next worker, HUP sets up again. If the
worker ends in another way, everything stays as it is. An early signal stays pending until it can be handled:
a worker that is stopped while it starts has something to remove.
"""

from __future__ import annotations

import os
import select
import signal
from typing import Any

import setproctitle

from supervisor.linux.capabilities import limit_effective
from supervisor.linux.signal_mask import unblock_all
from supervisor.log.logger import log, open_log_later, worker_logs_to_stderr
from supervisor.loop.loop import Loop
from supervisor.notify.service_side import LAST_VARIABLE, Sender
from workers.netns.forked_task import ForkedTask, Outcome
from workers.netns.worker import Reports, Worker
from workers.runtime.start import CONTROL, OPTIONS, passed_descriptors, read_options

RECORD = "record"  # name of the memory file in spawnd's store

# <linux/capability.h>. The tasks work on files in foreign folders, scripts that have changed their user, messages of
# other namespaces, interfaces, namespaces and mounts. A setup script has all capabilities of root.
CAP_DAC_OVERRIDE, CAP_KILL, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_SYS_ADMIN = 1, 5, 11, 12, 21
NEEDED = (CAP_DAC_OVERRIDE, CAP_KILL, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_SYS_ADMIN)


ANSWER_LIMIT = 90.0  # seconds; a connection lasts at most a minute
PAUSE = 1.0  # seconds; without processes or memory the socket stays readable, and this would spin


class Answers:
    """Answers calls on the control socket in a task, with all imports for Varlink: such calls are rare.

    The task accepts the queued clients, has a copy of the worker's facts, reads the state from the kernel,
    and ends with its last connection. Owns the listening socket `fd`.
    """

    def __init__(self, loop: Loop, fd: int, options: dict[str, Any], record: int) -> None:
        self._loop = loop
        self._fd = fd
        self._options = options
        self._record = record
        self._listen()

    def _listen(self) -> None:
        self._loop.watch(self._fd, select.EPOLLIN, lambda _events: self._called())

    def _called(self) -> None:
        self._loop.unwatch(self._fd)  # the task accepts the clients that are queued, and those that come meanwhile
        try:
            ForkedTask(self._loop, "answering calls", self._answer, ANSWER_LIMIT, self._answered)
        except OSError as error:
            log.error("netns@%s: cannot answer calls: %s; trying again", self._options["name"], error.strerror)
            self._loop.call_later(PAUSE, self._listen)

    def _answered(self, outcome: Outcome) -> None:
        if outcome.problem:
            log.error("netns@%s: %s", self._options["name"], outcome.problem)
        self._listen()

    def _answer(self) -> None:
        from workers.netns.control import serve

        serve(self._fd, self._options, self._record)


def main() -> int:
    open_log_later(worker_logs_to_stderr())
    limit_effective(NEEDED)
    fds = passed_descriptors()
    for fd in (fd for named in fds.values() for fd in named):
        os.set_inheritable(fd, False)  # the setup script must not inherit them
    options = read_options(fds[OPTIONS][0])
    name = options["name"]
    setproctitle.setproctitle(f"spawnd: netns@{name}")
    loop = Loop(on_error=lambda error: worker.unexpected(error))
    record = fds[RECORD][0] if RECORD in fds else os.memfd_create(RECORD, os.MFD_CLOEXEC)
    worker = Worker(loop, options, record, Reports(loop, Sender.from_environment()))
    for fd in fds.get(CONTROL, ()):
        Answers(loop, fd, options, record)
    for signum, callback in (
        (signal.SIGTERM, worker.stop),
        (signal.SIGINT, worker.stop),
        (signal.SIGUSR1, worker.leave),
        (signal.SIGHUP, worker.reload),
    ):
        loop.on_signal(signum, callback)
    unblock_all()
    if LAST_VARIABLE in os.environ:
        worker.stop()  # a set-up could fail and end this process before the signal arrives
    else:
        worker.start()
    loop.run()
    return worker.exit_status
