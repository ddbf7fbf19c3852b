"""spawnd's own log, line by line."""

from __future__ import annotations

import logging
import os
import re
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from supervisor.log.handler import MAX_LINE, NOTICE, LineHandler, SyslogSink, on_journal_stream
from supervisor.log.logger import (
    LEVELS,
    close_inherited_log,
    info_lines,
    log,
    notice,
    open_closed_stdio,
    open_log,
    open_log_later,
    set_level,
)
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
        """Return the data since the last call."""
        data = b""
        while select.select([self._read_end], [], [], 0)[0] and (chunk := os.read(self._read_end, 1 << 20)):
            data += chunk
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
    piped.logger.log(NOTICE, "normal")
    warning, noticed = piped.lines()
    assert re.fullmatch(rf"{TIME} warning qotd: not good", warning)
    assert re.fullmatch(rf"{TIME} notice  normal", noticed)


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (NOTICE, 5),
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
    monkeypatch.setattr("supervisor.log.handler.JOURNAL_SOCKET", str(tmp_path / "stdout"))
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


@contextmanager
def log_in(kind: str, folder: Path) -> Iterator[Log]:
    """A log that ends in something of that kind."""
    match kind:
        case "terminal":
            ours, theirs = os.openpty()
        case "pipe":
            ours, theirs = os.pipe()
        case "socket":
            ours, theirs = (sock.detach() for sock in socket.socketpair())
        case _:
            ours, theirs = os.open(folder / "log", os.O_RDONLY | os.O_CREAT), os.open(folder / "log", os.O_WRONLY)
    try:
        with closing(Log(theirs, ours)) as found:
            yield found
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("kind", ["terminal", "pipe", "socket", "file"])
def test_a_terminal_is_not_commanded(kind: str, tmp_path: Path) -> None:
    """A service's line could be made to look like one of ours, and more: a terminal answers some commands.

    A file is shown on one later.
    """
    with log_in(kind, tmp_path) as found:
        found.logger.error("a: \tone\rtwo\x1b[31mthree\x9b4m é")
        (line,) = found.lines()
    assert line.rstrip("\r").endswith(r" err     a: " + "\t" + r"one\rtwo\x1b[31mthree\x9b4m é")


def test_syslog_is_not_commanded_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "devlog")
    monkeypatch.setattr(SyslogSink.__init__, "__defaults__", (address,))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon, closing(LineHandler(None)) as handler:
        daemon.bind(address)
        handler.write(logging.INFO, "one\rtwo\x1b[31m")
        assert daemon.recv(4096).endswith(rb": one\rtwo\x1b[31m")


@pytest.mark.parametrize("filling", ["x", "é", "€", "😀"])
def test_a_line_that_is_too_long_is_cut_between_characters_and_says_so(journal: Log, filling: str) -> None:
    journal.logger.error("x%s", filling * MAX_LINE)
    journal.logger.error("next")
    long, following = journal.lines()
    assert long.startswith(f"<3>x{filling}")
    assert long.endswith(f"{filling}…")
    assert MAX_LINE - 4 <= len(f"{long}\n".encode()) <= MAX_LINE
    assert following == "<3>next"


def test_what_is_no_text_is_written_as_an_escape(journal: Log) -> None:
    journal.logger.error("%s", os.fsdecode(b"/srv/\xff"))
    assert journal.lines() == [r"<3>/srv/\xff"]


def test_bytes_that_are_not_utf_8_are_shown_in_a_file_too(piped: Log) -> None:
    piped.logger.error("%s \ud800", os.fsdecode(b"/srv/\xff"))
    assert piped.lines()[0].endswith(r" /srv/\xff \ud800")


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
    assert written == [b"1 line of log was lost\n", b"1 line of log was lost\n", b"three\n"]


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
        set_level("debug")
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
        monkeypatch.setattr(SyslogSink.__init__, "__defaults__", (address,))

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
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        return stderr_is_open, targets, [os.get_inheritable(fd) for fd in closed]

    assert in_child(reopen) == (2 not in closed, ["/dev/null"] * len(closed), [True] * len(closed))


def test_a_log_that_is_opened_with_its_first_line(capfd: pytest.CaptureFixture[str]) -> None:
    def run() -> tuple[int, int]:
        log.setLevel(logging.WARNING)
        log.propagate = False
        before = open_numbers()
        open_log_later(stderr_is_open=True)
        log.info("not wanted")
        nothing = len(open_numbers() - before)
        log.warning("%s line", "one")
        log.warning("another")
        return nothing, log.level

    assert in_child(run) == (0, logging.WARNING)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(None, 3)[3] for line in lines] == ["one line", "another"]


def test_lines_without_records_are_as_those_with(caplog: pytest.LogCaptureFixture) -> None:
    def write() -> bytes:
        read_end, write_end = os.pipe()
        os.dup2(write_end, 2)
        open_log("info", stderr_is_open=True)
        log.info("%s", "50% of it")
        info_lines(["50% of it"] * 100)
        set_level("notice")
        info_lines(["too little"])
        return os.read(read_end, 65536)

    lines = in_child(write).decode().splitlines()
    assert len(lines) == 101
    assert all(re.fullmatch(rf"{TIME} info    50% of it", line) for line in lines)
    with caplog.at_level(logging.INFO):
        info_lines(["50% of it", "all"])
    assert caplog.messages == ["50% of it", "all"]


def test_what_is_written_together_is_escaped_and_cut_line_by_line() -> None:
    given = ["plain", "a\x1b[2J", "\udcff", "x" * 5000, "ü", "last"]

    def write(together: bool) -> bytes:
        read_end, write_end = os.pipe()
        os.dup2(write_end, 2)
        open_log("info", stderr_is_open=True)
        if together:
            info_lines(given)
        else:
            for line in given:
                log.info("%s", line)
        return os.read(read_end, 65536)

    one, other = (in_child(lambda together=together: write(together)) for together in (True, False))  # type: ignore[misc]
    assert [line[20:] for line in one.splitlines()] == [line[20:] for line in other.splitlines()]
    assert len(one.splitlines()) == len(given)


def test_lines_that_are_not_taken_together_are_counted_one_by_one() -> None:
    def write() -> bytes:
        read_end, write_end = os.pipe()
        os.dup2(write_end, 2)
        handler = open_log("info", stderr_is_open=True)
        os.set_blocking(write_end, False)
        while True:
            try:
                os.write(write_end, b"x" * 4096)
            except BlockingIOError:
                break
        info_lines(["lost"] * 40)
        os.read(read_end, 1 << 20)
        info_lines(["heard", "too"])
        assert not handler.is_full
        return os.read(read_end, 65536)

    lines = [line[20:] for line in in_child(write).decode().splitlines()]
    assert lines == ["warning 40 lines of log were lost", "info    heard", "info    too"]


@pytest.mark.parametrize("stderr_is_open", [True, False])
def test_a_forked_child_closes_its_copies_and_leaves_the_numbers_to_others(
    stderr_is_open: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of a pipe, and of syslog, has a descriptor of its own: its number is another's in a worker."""
    address = str(tmp_path / "devlog")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(address)
        monkeypatch.setattr(SyslogSink.__init__, "__defaults__", (address,))

        def write() -> tuple[bytes, bytes]:
            read_end, write_end = os.pipe()
            os.dup2(write_end, 2)
            os.set_blocking(read_end, False)
            before = open_numbers()
            open_log("info", stderr_is_open)
            (number,) = open_numbers() - before
            close_inherited_log()
            assert open_numbers() == before
            others = os.memfd_create("others")
            assert others == number
            log.info("from the child")
            open_log("info", stderr_is_open)
            return os.pread(others, 4096, 0), os.read(read_end, 4096) if stderr_is_open else b""

        others, ours = in_child(write)
        said = ours if stderr_is_open else daemon.recv(4096)
    assert others == b""
    assert b"from the child" in said


def test_a_log_that_is_not_ours_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    before = list(log.handlers)
    close_inherited_log()
    assert log.handlers == before
