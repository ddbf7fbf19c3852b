"""spawnd's own log: on stderr, to syslog where stderr is closed.

On a stream of the journal each line begins with its priority (`sd-daemon(3)`), elsewhere
with the time.  A log that nobody reads (a stopped terminal, a full pipe) or that cannot be
written (a full disk) never stops the supervisor: lines are dropped and counted, and their
number is logged as soon as there is room again.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from functools import cache

from supervisor.log.sink import MAX_LINE, Sink, StreamSink, SyslogSink

NOTICE = 25  # between INFO and WARNING, as syslog has it
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": NOTICE,
    "warning": logging.WARNING,
    "err": logging.ERROR,
}
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, NOTICE: 5, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

JOURNAL_SOCKET = "/run/systemd/journal/stdout"

log = logging.getLogger("spawnd")


def notice(message: str, *args: object) -> None:
    """Log at notice: normal, but worth reading."""
    log.log(NOTICE, message, *args)


def info_line(line: str) -> None:
    """As `log.info`, for a line without newlines.  Where nobody but our own handler sees it, it costs no record."""
    match log.handlers:
        case [LineHandler() as handler] if not log.propagate:
            if log.isEnabledFor(logging.INFO):
                handler.write(logging.INFO, line)
        case _:
            log.info("%s", line)


def set_level(level: str) -> None:
    log.setLevel(LEVELS[level])


def open_log(level: str, stderr_is_open: bool) -> None:
    """Send what is logged from `level` on to where this process's log goes."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.addHandler(LineHandler(2 if stderr_is_open else None))
    log.propagate = False
    set_level(level)


def open_log_later() -> None:
    """For a worker of which there are many: as `open_log`, with the level that there is, when there is a line to log.

    What a forked worker has of its parent's log is forgotten rather than closed: those numbers are others' by now.
    """
    log.handlers[:] = [_Opening()]  # type: ignore[list-item]


class _Opening:
    """Stands in for the handler that it makes: an object of the library's own would cost as much as that."""

    level = logging.NOTSET

    def handle(self, record: logging.LogRecord) -> None:
        level = log.level or logging.INFO
        open_log("info", stderr_is_open=True)
        log.setLevel(level)
        log.handle(record)

    def close(self) -> None:
        """It holds nothing."""


def open_closed_stdio() -> bool:
    """Open `/dev/null` on those of 0, 1, 2 that are closed, lest a socket lands there.  False: stderr was closed."""
    stderr_is_open = True
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            stderr_is_open = stderr_is_open and fd != 2
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # lands on the lowest free number: this one
    return stderr_is_open


def on_journal_stream(fd: int) -> bool:
    """Whether `fd` is the stream that `$JOURNAL_STREAM` names by device and inode, or any other of the journal.

    A worker, whose environment is its definition's, has spawnd's or one that was made for it.
    """
    status = os.fstat(fd)
    if os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
        return True
    if not stat.S_ISSOCK(status.st_mode):
        return False
    try:
        with socket.socket(fileno=os.dup(fd)) as stream:
            return bool(stream.getpeername() == JOURNAL_SOCKET)
    except OSError:  # of a pair, or its other end is gone
        return False


def _without_commands(line: str) -> str:
    """The line with what would command a terminal as an escape: what services write comes by here."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in line)


@cache
def _name(level: int) -> str:
    return f"{logging.getLevelName(level).lower():7}"


class LineHandler(logging.Handler):
    """Writes each line of a record by itself to the descriptor, None: to syslog."""

    def __init__(self, fd: int | None) -> None:
        super().__init__()
        self._sink: Sink = SyslogSink("spawnd") if fd is None else StreamSink(fd)
        self._with_priority = fd is None or on_journal_stream(fd)
        self._on_terminal = fd is not None and os.isatty(fd)
        self._lost = 0
        self._second = -1
        self._shown = ""  # that second, as a line begins with it

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # a message and its arguments that do not fit lose no more than themselves
            text = f"cannot format log message {record.msg!r}: {error}"
        # at newlines alone: at its form feeds a service's line would go on as one of ours
        for line in text.rstrip("\n").split("\n"):
            self.write(record.levelno, line)

    def close(self) -> None:
        self._sink.close()
        super().close()

    def write(self, level: int, line: str) -> None:
        """One line, without a newline."""
        if self._lost and self._sink.write(self._line(logging.WARNING, f"{self._lost} lines of log were lost")):
            self._lost = 0
        if self._lost or not self._sink.write(self._line(level, line)):
            self._lost += 1

    def _time(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._shown = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return self._shown

    def _line(self, level: int, line: str) -> bytes:
        if self._with_priority:
            text = f"<{_PRIORITIES.get(level, 6)}>{line}"
        else:
            shown = _without_commands(line) if self._on_terminal else line
            text = f"{self._time()} {_name(level)} {shown}"
        return text.encode(errors="backslashreplace")[: MAX_LINE - 1] + b"\n"


# what no line has in it is not looked up: see "Optimization" in the documentation of `logging`
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
setattr(logging, "_srcfile", None)  # noqa: B010 - which mypy does not know
logging.addLevelName(NOTICE, "NOTICE")
logging.addLevelName(logging.ERROR, "ERR")
