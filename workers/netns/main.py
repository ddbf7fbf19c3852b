"""The netns worker: keeps one network namespace.

TERM removes link and namespace, USR1 (a restart) leaves them to the next worker, HUP sets up
again.  However it ends otherwise, everything stays as it is.  A signal that comes before it can be
heard waits: what is told to stop while it starts has something to remove.
"""

from __future__ import annotations

import os
import signal

import setproctitle

from supervisor.linux.capabilities import limit_effective
from supervisor.linux.signal_mask import unblock_all
from supervisor.log.logger import open_log_later
from supervisor.loop.loop import Loop
from supervisor.notify.sender import Sender
from workers.netns.answers import Answers
from workers.netns.reports import Reports
from workers.netns.worker import Worker
from workers.runtime.descriptors import CONTROL, OPTIONS, passed_descriptors, read_options

RECORD = "record"  # the name of the memory file in spawnd's store

# <linux/capability.h>: what the errands do.  Files in folders of others, scripts that have become another user, hearing
# of other namespaces, interfaces, and namespaces and mounts.  A setup script has all that root has.
CAP_DAC_OVERRIDE, CAP_KILL, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_SYS_ADMIN = 1, 5, 11, 12, 21
NEEDED = (CAP_DAC_OVERRIDE, CAP_KILL, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_SYS_ADMIN)


def main() -> int:
    open_log_later()
    limit_effective(NEEDED)
    fds = passed_descriptors()
    for fd in (fd for named in fds.values() for fd in named):
        os.set_inheritable(fd, False)  # the setup script is to have none of them
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
    worker.start()
    loop.run()
    return worker.exit_status
