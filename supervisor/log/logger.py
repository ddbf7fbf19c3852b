"""spawnd's own log: on stderr, or in syslog if stderr is closed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from supervisor.log.handler import NOTICE, LineHandler

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": NOTICE,
    "warning": logging.WARNING,
    "err": logging.ERROR,
}
# In the environment of a worker that shares spawnd's log, if that is syslog; its stderr is /dev/null then.
LOG_VARIABLE = "SPAWND_LOG"
TO_SYSLOG = "syslog"

log = logging.getLogger("spawnd")
notice = partial(log.log, NOTICE)  # for lines that are normal, but worth attention


def info_lines(lines: Sequence[str]) -> None:
    """Log lines, given without newlines, like `log.info`.

    If this module's handler is the only one, the lines need no records, and few writes.
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
    """Send records from `level` on to the log of this process."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    opened = LineHandler(2 if stderr_is_open else None)
    log.addHandler(opened)
    log.propagate = False
    set_level(level)
    return opened


def open_log_later(stderr_is_open: bool) -> None:
    """Open the log like `open_log` at its first line, with the current level.

    This saves time for workers with many instances.
    """
    log.handlers[:] = [_Opening(stderr_is_open)]  # type: ignore[list-item]


def close_inherited_log() -> None:
    """Close a forked child's copies of descriptors of its parent's log, and reopen the log at the first line.

    The child calls it before descriptors are closed or moved. Their numbers are reused soon, so a log that
    kept them would write to, or close, an unrelated descriptor.
    """
    for place, handler in enumerate(log.handlers):
        if isinstance(handler, LineHandler):
            with suppress(OSError):  # EBADF in a child that was forked without the descriptors of others
                handler.close()
            log.handlers[place] = _Opening(handler.on_stderr)  # type: ignore[call-overload]


def worker_logs_to_stderr() -> bool:
    """Whether this worker logs to its stderr; LOG_VARIABLE from spawnd stands for syslog."""
    return os.environ.get(LOG_VARIABLE) != TO_SYSLOG


class _Opening:
    """A placeholder for the handler that it opens; cheaper than a handler of the library."""

    level = logging.NOTSET

    def __init__(self, stderr_is_open: bool) -> None:
        self._stderr_is_open = stderr_is_open

    def handle(self, record: logging.LogRecord) -> None:
        level = log.level or logging.INFO
        open_log("info", self._stderr_is_open)
        log.setLevel(level)
        log.handle(record)

    def close(self) -> None:
        """Do nothing, as no descriptor is open."""


def open_closed_stdio() -> bool:
    """Open `/dev/null` on those of 0, 1, 2 that are closed, to keep sockets out; return whether stderr was open.

    In a process that was started without them, Python has no `sys.stdout` etc., which are set here.
    """
    stderr_is_open = True
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            stderr_is_open = stderr_is_open and fd != 2
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
            setattr(sys, name, open(fd, "w" if fd else "r", closefd=False))
    return stderr_is_open


# leave out data that no line shows: see "Optimization" in the documentation of `logging`
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
setattr(logging, "_srcfile", None)  # noqa: B010 - which mypy does not know
logging.addLevelName(NOTICE, "NOTICE")
logging.addLevelName(logging.ERROR, "ERR")
