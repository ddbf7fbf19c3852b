"""spawnd's own log: on stderr, to syslog where stderr is closed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from functools import partial

from supervisor.log.handler import NOTICE, LineHandler

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": NOTICE,
    "warning": logging.WARNING,
    "err": logging.ERROR,
}
# In the environment of a worker that shares spawnd's log, where that is syslog: its stderr is /dev/null then.
LOG_VARIABLE = "SPAWND_LOG"
TO_SYSLOG = "syslog"

log = logging.getLogger("spawnd")
notice = partial(log.log, NOTICE)  # for lines that are normal, but worth reading


def info_lines(lines: Sequence[str]) -> None:
    """Do what `log.info` does for lines without newlines.

    Where nobody but our own handler sees them, they cost no record, and few writes.
    """
    match log.handlers:
        case [LineHandler() as handler] if not log.propagate:
            if log.isEnabledFor(logging.INFO):
                handler.write_all(logging.INFO, lines)
        case _:
            for line in lines:
                log.info("%s", line)


def set_level(level: str) -> None:
    log.setLevel(LEVELS[level])


def open_log(level: str, stderr_is_open: bool) -> LineHandler:
    """Send what is logged from `level` on to where this process's log goes."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    opened = LineHandler(2 if stderr_is_open else None)
    log.addHandler(opened)
    log.propagate = False
    set_level(level)
    return opened


def open_log_later(stderr_is_open: bool) -> None:
    """Do what `open_log` does, with the level that there is, as soon as there is a line to log.

    For workers of which there are many.
    """
    log.handlers[:] = [_Opening(stderr_is_open)]  # type: ignore[list-item]


def close_inherited_log() -> None:
    """Close the child's copies of what its parent's log has open, and open the log anew with the first line.

    To be called in a forked child before descriptors are closed or moved: the parent's numbers are soon used for
    other things there, and a log that kept them would write to, or close, a descriptor of somebody else.
    """
    for place, handler in enumerate(log.handlers):
        if isinstance(handler, LineHandler):
            handler.close()
            log.handlers[place] = _Opening(handler.on_stderr)  # type: ignore[call-overload]


def worker_logs_to_stderr() -> bool:
    """Whether the log of this worker is on its stderr: spawnd tells a worker by LOG_VARIABLE that it is syslog."""
    return os.environ.get(LOG_VARIABLE) != TO_SYSLOG


class _Opening:
    """Stands in for the handler that it makes: an object of the library's own would cost as much as that."""

    level = logging.NOTSET

    def __init__(self, stderr_is_open: bool) -> None:
        self._stderr_is_open = stderr_is_open

    def handle(self, record: logging.LogRecord) -> None:
        level = log.level or logging.INFO
        open_log("info", self._stderr_is_open)
        log.setLevel(level)
        log.handle(record)

    def close(self) -> None:
        """It holds nothing."""


def open_closed_stdio() -> bool:
    """Open `/dev/null` on those of 0, 1, 2 that are closed, lest a socket lands there.  False: stderr was closed.

    Python has no `sys.stdout` in a process that was started without one, and gets it here.
    """
    stderr_is_open = True
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            stderr_is_open = stderr_is_open and fd != 2
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # lands on the lowest free number: this one
            setattr(sys, name, open(fd, "w" if fd else "r", closefd=False))
    return stderr_is_open


# what no line has in it is not looked up: see "Optimization" in the documentation of `logging`
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
setattr(logging, "_srcfile", None)  # noqa: B010 - which mypy does not know
logging.addLevelName(NOTICE, "NOTICE")
logging.addLevelName(logging.ERROR, "ERR")
