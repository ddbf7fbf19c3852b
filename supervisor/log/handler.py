"""Output of log lines, each with a prefix and in a single write, to a sink that never blocks.

On a stream of the journal, each line begins with its priority (`sd-daemon(3)`), elsewhere with the time. A
log without a reader (a stopped terminal, a full pipe) and a log that cannot be written (a full disk) never
stop the supervisor: lines are dropped and counted, and their number is logged as soon as there is room again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import socket
import stat
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Protocol

from supervisor.printable import count, encodable, escape

NOTICE = 25  # between INFO and WARNING, like in syslog
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, NOTICE: 5, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
JOURNAL_SOCKET = "/run/systemd/journal/stdout"

MAX_LINE = 4096  # bytes that a pipe accepts atomically (PIPE_BUF)
CUT = "…"  # end of a truncated line
_TOGETHER = 32  # lines in one write
_LONGEST_CHARACTER = 4  # bytes in UTF-8
_DAEMON = 3 << 3  # syslog's facility "daemon"
_SPARE = 4  # a pipe has much room if at most this fraction of it (1/4) is used


class LineHandler(logging.Handler):
    """Writes each line of a record separately to the descriptor, or to syslog for None."""

    def __init__(self, fd: int | None) -> None:
        super().__init__()
        self.on_stderr = fd is not None
        self._sink: Sink = SyslogSink("spawnd") if fd is None else StreamSink(fd)
        self._to_journal = fd is not None and on_journal_stream(fd)
        self._with_priority = fd is None or self._to_journal
        self._lost = 0
        self._second = -1
        self._shown = ""  # that second as text, the prefix of lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # only the message that does not match its arguments is lost
            text = f"cannot format log message {record.msg!r}: {error}"
        # at newlines only: split at form feeds, a service's line could pass for a line of spawnd
        for line in text.rstrip("\n").split("\n"):
            self.write(record.levelno, line)

    def close(self) -> None:
        self._sink.close()
        super().close()

    def write(self, level: int, line: str) -> None:
        """Write a line, given without newline, or drop it if the sink does not accept it at once."""
        if not self.offer(level, line):
            self.lose()

    def write_all(self, level: int, lines: Sequence[str]) -> None:
        """Write lines, given without newlines; printable ASCII lines together, up to the size of an atomic write."""
        for first in range(0, len(lines), _TOGETHER):
            some = lines[first : first + _TOGETHER]
            text = "".join(some)
            begin = self._begin(level)
            written = 0
            if self.on_stderr and text.isascii() and text.isprintable() and not self._lost:
                data = "".join([f"{begin}{line}\n" for line in some]).encode()
                written = self._sink.write(data) if len(data) <= MAX_LINE else 0
            for line in some[written:]:
                self.write(level, line)

    def offer(self, level: int, line: str) -> bool:
        """Write one line if the sink accepts it at once, after the number of lost lines, if any."""
        if self._lost:
            told = f"{count(self._lost, 'line')} of log {'was' if self._lost == 1 else 'were'} lost"
            if self._sink.write(self._line(logging.WARNING, told)):
                self._lost = 0
        return not self._lost and self._sink.write(self._line(level, line)) > 0

    def offer_some(self, level: int, lines: Sequence[str]) -> int:
        """Write the first lines in one write, as many as the sink accepts whole; return how many.

        0: the first line was refused.
        """
        if self._lost or len(lines) == 1 or not self._sink.takes_whole:
            return int(self.offer(level, lines[0]))
        data = b""
        for line in lines:
            one = self._line(level, line)
            if len(data) + len(one) > MAX_LINE:
                break
            data += one
        return self._sink.write(data)

    def lose(self, lines: int = 1) -> None:
        """Count lines that will not be written."""
        self._lost += lines

    @property
    def is_full(self) -> bool:
        """Whether the last line was refused because the sink was full, which its reader can change."""
        return self._sink.is_full

    @property
    def has_much_room(self) -> bool:
        """Whether the sink has enough room for writers besides this one."""
        return self._sink.has_much_room()

    def _time(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._shown = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return self._shown

    def _line(self, level: int, line: str) -> bytes:
        """Return the bytes of a line with newline, with escapes for characters that the sink does not accept.

        Files and pipes end up on terminals sooner or later. Programs that show the journal escape control
        characters themselves.
        """
        shown = encodable(line) if self._to_journal else without_commands(line)
        return cut(f"{self._begin(level)}{shown}".encode(), MAX_LINE - 1) + b"\n"

    def _begin(self, level: int) -> str:
        """Return the prefix of a line."""
        return f"<{_PRIORITIES.get(level, 6)}>" if self._with_priority else f"{self._time()} {_name(level)} "


def on_journal_stream(fd: int) -> bool:
    """Whether `fd` is a stream of the journal, either that of `$JOURNAL_STREAM` (device and inode) or another one.

    A worker has the environment of its definition, and a stream of spawnd or one of its own.
    """
    status = os.fstat(fd)
    if os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
        return True
    if not stat.S_ISSOCK(status.st_mode):
        return False
    try:
        with socket.socket(fileno=os.dup(fd)) as stream:
            return bool(stream.getpeername() == JOURNAL_SOCKET)
    except OSError:  # one of a socket pair, or the other end is gone
        return False


@cache
def _name(level: int) -> str:
    return f"{logging.getLevelName(level).lower():7}"


# sinks


class Sink(Protocol):
    is_full: bool  # the last line was refused because the sink was full
    takes_whole: bool  # whether a write of at most MAX_LINE bytes is accepted whole or not at all

    def write(self, lines: bytes) -> int:
        """Write lines of at most MAX_LINE bytes, with their newlines; return how many were written whole.

        0: a write would block, or has failed. Sinks that do not take them whole get one line.
        """

    def has_much_room(self) -> bool:
        """Whether a frequent writer leaves enough room for others."""

    def close(self) -> None:
        """Close what the sink has opened."""


class StreamSink:
    """A descriptor that other processes write to as well; its owner keeps it.

    O_NONBLOCK cannot be set, because it is shared with those processes. The sink opens a pipe or terminal
    again instead, if it is permitted, and owns the new descriptor. A socket has a flag for each message.
    """

    def __init__(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        self._fd = self._given = fd
        self._is_socket = stat.S_ISSOCK(mode)
        self._is_pipe = stat.S_ISFIFO(mode)
        self.takes_whole = self._is_pipe or stat.S_ISREG(mode)
        self.is_full = False
        self._is_cut = False  # the last line is incomplete: the disk became full
        self._may_block = not stat.S_ISREG(mode)
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            with suppress(OSError):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._fd = os.open(f"/proc/self/fd/{fd}", flags)
                self._may_block = False

    def write(self, lines: bytes) -> int:
        self.is_full = False
        begin = b"\n" if self._is_cut else b""
        try:
            if self._is_socket:
                return _send(self._fd, lines)
            if self._may_block and not _has_room(self._fd):
                raise BlockingIOError
            written = (begin + lines)[: os.write(self._fd, begin + lines)]
        except OSError as error:
            self.is_full = isinstance(error, BlockingIOError)
            return 0
        self._is_cut = not written.endswith(b"\n")
        return written.count(b"\n") - len(begin)

    def has_much_room(self) -> bool:
        """Whether a pipe has much room; other files report that they are full only when they refuse a line."""
        if not self._is_pipe:
            return True
        try:
            waiting = int.from_bytes(fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)), sys.byteorder)
            return waiting * _SPARE <= fcntl.fcntl(self._fd, fcntl.F_GETPIPE_SZ)
        except OSError:
            return True

    def close(self) -> None:
        if self._fd != self._given:
            os.close(self._fd)
            self._fd = self._given


def _has_room(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def _send(fd: int, line: bytes) -> bool:
    with socket.socket(fileno=os.dup(fd)) as stream:
        return stream.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(line)


class SyslogSink:
    """The syslog daemon at `/dev/log`, found again after its restart. Lines begin with `<PRIORITY>`."""

    def __init__(self, name: str, address: str = "/dev/log") -> None:
        self._name = name
        self._address = address
        self.is_full = self.takes_whole = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def write(self, lines: bytes) -> int:
        priority, _, text = lines.rstrip(b"\n").partition(b">")
        number = _DAEMON | int(priority[1:])
        self.is_full = False
        try:
            self._socket.sendto(b"<%d>%s[%d]: %s" % (number, self._name.encode(), os.getpid(), text), self._address)
        except OSError as error:
            self.is_full = isinstance(error, BlockingIOError)
            return 0
        return 1

    def has_much_room(self) -> bool:
        return True

    def close(self) -> None:
        self._socket.close()


# text


class _Escapes(dict[int, str]):
    """Escapes by code point for `str.translate`, each made at its first use."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = shown = char if char.isprintable() or char == "\t" else escape(char)
        return shown


_ESCAPES = _Escapes()


def without_commands(line: str) -> str:
    """Return a line encodable in UTF-8, with escapes for control characters other than tab."""
    return line if line.isprintable() else line.translate(_ESCAPES)


def boundary(data: bytes, at: int) -> int:
    """Return the last position up to `at` where a UTF-8 character begins, or `at` in other data."""
    for place in range(at, max(0, at - _LONGEST_CHARACTER), -1):
        if place == len(data) or data[place] & 0xC0 != 0x80:
            return place
    return at


def cut(line: bytes, size: int) -> bytes:
    """Return at most `size` bytes of a line; a truncated line ends with a mark."""
    if len(line) <= size:
        return line
    mark = CUT.encode()
    return line[: boundary(line, size - len(mark))] + mark


def pieces(line: str, size: int) -> list[str]:
    """Split a line into pieces of at most `size` bytes."""
    data = line.encode()
    found = []
    while len(data) > size:
        at = boundary(data, size)
        found.append(data[:at].decode())
        data = data[at:]
    return [*found, data.decode()]
