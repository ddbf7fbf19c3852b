"""Streams to the journal, against a server that is none."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.errors import StepError
from supervisor.log.output import JournalOutputs
from tests.unit.closing import PatientCloser
from tests.unit.process.forked import open_numbers
from tests.unit.waiting import DEADLINE, fill

MANY = 100  # more than wait to be accepted with the shortest queue


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "stdout"))
        server.listen()
        server.settimeout(DEADLINE)
        yield server


@pytest.fixture
def outputs(journal: socket.socket) -> JournalOutputs:
    return JournalOutputs(PatientCloser().close, journal.getsockname())


def test_a_stream_begins_with_its_header_and_goes_on_with_the_output(
    journal: socket.socket, outputs: JournalOutputs
) -> None:
    fd = outputs.stream("qotd")
    os.write(fd, b"<3>hello\n")
    connection, _ = journal.accept()
    with connection:
        outputs.drop("qotd")
        with connection.makefile("rb") as stream:
            assert stream.read() == b"qotd\n\n6\n1\n0\n0\n0\n<3>hello\n"


def test_a_service_gets_a_stream_that_blocks_and_that_no_other_program_inherits(outputs: JournalOutputs) -> None:
    fd = outputs.stream("qotd")
    try:
        assert os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    finally:
        outputs.drop("qotd")


def test_a_service_keeps_its_stream_over_restarts(outputs: JournalOutputs) -> None:
    before = open_numbers()
    fd = outputs.stream("a")
    assert outputs.stream("a") == fd
    assert outputs.stream("b") != fd
    outputs.drop("a")
    outputs.drop("a")
    outputs.drop("b")
    assert open_numbers() == before


def test_a_journal_that_hung_up_is_connected_to_anew(journal: socket.socket, outputs: JournalOutputs) -> None:
    before = open_numbers()
    outputs.stream("a")
    journal.accept()[0].close()
    os.write(outputs.stream("a"), b"again\n")
    connection, _ = journal.accept()
    with connection:
        outputs.drop("a")
        with connection.makefile("rb") as stream:
            assert stream.read().endswith(b"\nagain\n")
    assert open_numbers() == before


def test_the_journal_keeps_the_output_itself(outputs: JournalOutputs) -> None:
    assert outputs.since("qotd") is None


def test_no_journal_is_a_step_that_failed(tmp_path: Path) -> None:
    address = str(tmp_path / "missing")
    before = open_numbers()
    with pytest.raises(StepError, match=r"cannot connect to the journal .*: No such file or directory") as caught:
        JournalOutputs(PatientCloser().close, address).stream("qotd")
    assert caught.value.path == address
    assert open_numbers() == before


def test_a_journal_that_accepts_nobody_does_not_hold_us_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "stdout"))
        server.listen(0)
        outputs = JournalOutputs(PatientCloser().close, server.getsockname())
        before = open_numbers()
        with pytest.raises(StepError, match="Resource temporarily unavailable"):
            _open_many(outputs)
        for number in range(MANY):
            outputs.drop(str(number))
        assert open_numbers() == before
        # and when there is room again, it connects
        server.accept()[0].close()
        while select.select([server], [], [], 0)[0]:
            server.accept()[0].close()
        outputs.stream("again")
        outputs.drop("again")


def _open_many(outputs: JournalOutputs) -> None:
    for number in range(MANY):
        outputs.stream(str(number))


def test_the_end_of_a_process_is_the_end_of_its_line(journal: socket.socket, outputs: JournalOutputs) -> None:
    outputs.end_line("a")
    os.write(outputs.stream("a"), b"last words")
    outputs.end_line("a")
    connection, _ = journal.accept()
    with connection:
        outputs.drop("a")
        with connection.makefile("rb") as stream:
            assert stream.read().endswith(b"\nlast words\n")


def test_a_journal_that_does_not_read_or_is_gone_stops_nobody(journal: socket.socket, outputs: JournalOutputs) -> None:
    fd = outputs.stream("a")
    fill(fd)
    outputs.end_line("a")
    journal.accept()[0].close()
    outputs.end_line("a")
    outputs.drop("a")
