"""spawnd's own log, line by line."""

from __future__ import annotations

import logging
import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.log import logger, sink
from supervisor.log.logger import (
    LEVELS,
    LineHandler,
    info_line,
    log,
    notice,
    on_journal_stream,
    open_closed_stdio,
    open_log,
    open_log_later,
)
from supervisor.log.sink import MAX_LINE
from tests.unit.process.forked import in_child, open_numbers

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


class Log:
    """A log of its own that ends in a pipe."""

    def __init__(self, fd: int, read_end: int) -> None:
        self.handler = LineHandler(fd)
        self.logger = logging.Logger("test")
        self.logger.addHandler(self.handler)
        self._read_end = read_end

    def lines(self) -> list[str]:
        """What has come since the last time."""
        data = b""
        while select.select([self._read_end], [], [], 0)[0]:
            data += os.read(self._read_end, 1 << 20)
        assert data == b"" or data.endswith(b"\n")
        return data.decode().split("\n")[:-1]

    def close(self) -> None:
        self.handler.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.fixture
def piped(pipe: tuple[int, int]) -> Iterator[Log]:
    with closing(Log(pipe[1], pipe[0])) as piped:
        yield piped


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat(ours.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        with closing(Log(ours.fileno(), theirs.fileno())) as journal:
            yield journal


def test_a_line_begins_with_time_and_level(piped: Log) -> None:
    piped.logger.warning("%s: not good", "qotd")
    piped.logger.log(logger.NOTICE, "normal")
    warning, noticed = piped.lines()
    assert re.fullmatch(rf"{TIME} warning qotd: not good", warning)
    assert re.fullmatch(rf"{TIME} notice  normal", noticed)


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (logger.NOTICE, 5),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 2),
        (17, 6),
    ],
)
def test_on_a_stream_of_the_journal_it_begins_with_its_priority(journal: Log, level: int, priority: int) -> None:
    journal.logger.setLevel(1)
    journal.logger.log(level, "hello")
    assert journal.lines() == [f"<{priority}>hello"]


@pytest.mark.parametrize("value", ["", "1:1", "rubbish"])
def test_another_stream_than_the_journal_s_is_no_journal(
    pipe: tuple[int, int], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", value)
    assert not on_journal_stream(pipe[1])
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not on_journal_stream(pipe[1])


def test_a_stream_that_the_journal_was_connected_to_is_known_without_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker has it, whose environment is its own."""
    monkeypatch.setattr(logger, "JOURNAL_SOCKET", str(tmp_path / "stdout"))
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    for name, known in (("stdout", True), ("other", False)):
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as stream:
            assert not on_journal_stream(stream.fileno())
            listener.bind(str(tmp_path / name))
            listener.listen()
            stream.connect(str(tmp_path / name))
            assert on_journal_stream(stream.fileno()) is known
            stream.send(b"still open")


def test_every_line_of_a_traceback_has_its_own_beginning(journal: Log) -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        journal.logger.error("unexpected error", exc_info=error)
    lines = journal.lines()
    assert lines[:2] == ["<3>unexpected error", "<3>Traceback (most recent call last):"]
    assert lines[-2:] == ["<3>ValueError: first", "<3>second"]
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x1d", "\x85", "\u2028", "\u2029", "\r"])
def test_nothing_but_a_newline_makes_a_new_line(journal: Log, character: str) -> None:
    """A service must not be able to write lines that look like spawnd's own."""
    journal.logger.info("a: hello%s<0>spawnd speaks", character)
    assert journal.lines() == [f"<6>a: hello{character}<0>spawnd speaks"]


def test_a_terminal_is_not_commanded() -> None:
    """A service's line could be made to look like one of ours, and more: a terminal answers some commands."""
    ours, terminal = os.openpty()
    try:
        with closing(Log(terminal, ours)) as on_terminal:
            on_terminal.logger.error("a: \tone\rtwo\x1b[31mthree\x9b4m é")
            (line,) = on_terminal.lines()
    finally:
        os.close(ours)
        os.close(terminal)
    assert line.rstrip("\r").endswith(r" err     a: " + "\t" + r"one\rtwo\x1b[31mthree\x9b4m é")


def test_a_line_that_is_too_long_is_cut(journal: Log) -> None:
    journal.logger.error("x" * 3 * MAX_LINE)
    journal.logger.error("next")
    long, following = journal.lines()
    assert long == "<3>" + "x" * (MAX_LINE - 4)
    assert following == "<3>next"


def test_what_is_no_text_is_written_as_an_escape(journal: Log) -> None:
    journal.logger.error("%s", os.fsdecode(b"/srv/\xff"))
    assert journal.lines() == [r"<3>/srv/\udcff"]


def test_arguments_that_do_not_fit_lose_their_own_message_alone(journal: Log) -> None:
    journal.logger.error("%d problems", "many")
    journal.logger.error("next")
    lines = journal.lines()
    assert lines[0].startswith("<3>cannot format log message '%d problems': ")
    assert lines[-1] == "<3>next"


def test_lost_lines_are_counted_and_told_of_once_there_is_room(piped: Log) -> None:
    written = 0
    while not piped.handler._lost:
        piped.logger.error("line %d", written)
        written += 1
    for _ in range(10):
        piped.logger.error("into the void")
    kept = piped.lines()
    assert [line.split(" err     ")[1] for line in kept] == [f"line {number}" for number in range(written - 1)]
    piped.logger.error("there is room")
    piped.logger.error("and more")
    told, *others = piped.lines()
    assert re.fullmatch(rf"{TIME} warning 11 lines of log were lost", told)
    assert [line.split(" err     ")[1] for line in others] == ["there is room", "and more"]


def test_when_there_is_room_for_the_number_alone_the_line_counts_as_lost_again(
    piped: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [False, True, False, True, True]
    written: list[bytes] = []

    def write(line: bytes) -> bool:
        if room.pop(0):
            written.append(line.split(b" ", 3)[-1])
            return True
        return False

    monkeypatch.setattr(piped.handler._sink, "write", write)
    for text in ("one", "two", "three"):
        piped.logger.warning(text)
    assert written == [b"1 lines of log were lost\n", b"1 lines of log were lost\n", b"three\n"]


def test_a_full_disk_stops_nobody() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with closing(Log(fd, -1)) as full:
            for _ in range(100):
                full.logger.error("nobody hears this")
            assert full.handler._lost == 100
    finally:
        os.close(fd)


def test_open_log_writes_from_its_level_on_to_stderr() -> None:
    def write() -> bytes:
        read_end, write_end = os.pipe()
        os.dup2(write_end, 2)
        open_log("notice", stderr_is_open=True)
        log.info("too little")
        notice("%s", "enough")
        logger.set_level("debug")
        log.debug("now")
        return os.read(read_end, 4096)

    first, second = in_child(write).decode().splitlines()
    assert re.fullmatch(rf"{TIME} notice  enough", first)
    assert re.fullmatch(rf"{TIME} debug   now", second)


def test_the_log_goes_nowhere_else() -> None:
    def write() -> tuple[int, int, bool, bool]:
        open_log("info", stderr_is_open=True)
        before = open_numbers()
        open_log("info", stderr_is_open=True)
        return len(log.handlers), log.level, log.propagate, open_numbers() == before

    assert in_child(write) == (1, logging.INFO, False, True)


def test_every_level_of_a_definition_is_known() -> None:
    assert list(LEVELS) == ["debug", "info", "notice", "warning", "err"]
    assert sorted(LEVELS.values()) == list(LEVELS.values())


# stderr that is closed


def test_with_stderr_closed_the_log_goes_to_syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "devlog")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(address)
        monkeypatch.setattr(sink.SyslogSink.__init__, "__defaults__", (address,))

        def write() -> tuple[bool, str, int]:
            os.close(2)
            stderr_is_open = open_closed_stdio()
            open_log("info", stderr_is_open)
            log.error("first\nsecond")
            return stderr_is_open, os.readlink("/proc/self/fd/2"), os.getpid()

        stderr_is_open, target, pid = in_child(write)
        assert not stderr_is_open
        assert target == "/dev/null"
        assert daemon.recv(4096) == b"<27>spawnd[%d]: first" % pid
        assert daemon.recv(4096) == b"<27>spawnd[%d]: second" % pid


@pytest.mark.parametrize("closed", [(), (0,), (1,), (0, 1), (2,), (0, 2), (0, 1, 2)])
def test_closed_ones_are_opened_on_nothing_and_stay_so_over_exec(closed: tuple[int, ...]) -> None:
    def reopen() -> tuple[bool, list[str], list[bool]]:
        for fd in closed:
            os.close(fd)
        stderr_is_open = open_closed_stdio()
        targets = [os.readlink(f"/proc/self/fd/{fd}") for fd in closed]
        return stderr_is_open, targets, [os.get_inheritable(fd) for fd in closed]

    assert in_child(reopen) == (2 not in closed, ["/dev/null"] * len(closed), [True] * len(closed))


def test_a_log_that_is_opened_with_its_first_line(capfd: pytest.CaptureFixture[str]) -> None:
    def run() -> tuple[int, int]:
        log.setLevel(logging.WARNING)
        log.propagate = False
        before = open_numbers()
        open_log_later()
        log.info("not wanted")
        nothing = len(open_numbers() - before)
        log.warning("%s line", "one")
        log.warning("another")
        return nothing, log.level

    assert in_child(run) == (0, logging.WARNING)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(None, 3)[3] for line in lines] == ["one line", "another"]


def test_a_line_without_a_record_is_as_one_with(caplog: pytest.LogCaptureFixture) -> None:
    def write() -> bytes:
        read_end, write_end = os.pipe()
        os.dup2(write_end, 2)
        open_log("info", stderr_is_open=True)
        log.info("%s", "50% of it")
        info_line("50% of it")
        logger.set_level("notice")
        info_line("too little")
        return os.read(read_end, 4096)

    lines = in_child(write).decode().splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(rf"{TIME} info    50% of it", line) for line in lines)
    with caplog.at_level(logging.INFO):
        info_line("50% of it")
    assert caplog.messages == ["50% of it"]
