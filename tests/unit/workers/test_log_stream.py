"""One stream of the log worker: lines out of whatever pieces come."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.linux.pipe_call import PipeCall, start_read
from supervisor.log.handler import CUT, without_commands
from supervisor.log.output import PROCESS_ENDED
from supervisor.log.ring import make_ring, since
from tests.daemon import wait_until
from tests.unit.killed_call import killed_call
from tests.unit.process.forked import open_numbers
from workers.log import stream
from workers.log.stream import LARGEST, LONGEST_LINE, MOST_KILLED, Stream

short = st.binary(min_size=1, max_size=20) | st.sampled_from(
    [b"\n", b"a\nb\n", b"crlf\r\n", PROCESS_ENDED, PROCESS_ENDED[:5], PROCESS_ENDED[-5:]]
)
long = st.sampled_from(
    [
        b"x" * LONGEST_LINE, b"y" * (LONGEST_LINE + 1), b"z" * 3 * LONGEST_LINE, "é".encode() * LONGEST_LINE,
        b"\x1b" * LONGEST_LINE,
    ]
)  # fmt: skip
# a child makes each read: what is read in small chunks is short
runs = st.tuples(st.lists(short, max_size=10), st.sampled_from([1, 7])) | st.tuples(
    st.lists(short | long, max_size=10), st.sampled_from([1021, 4096, 1 << 16])
)


def read(stream: Stream, size: int) -> int | None:
    """Read as the worker does: what a child reads late, on a busy machine, comes once it has ended."""
    taken = stream.read(size)
    while (call := stream.call) is not None:
        wait_until(partial(call.has_ended, 1000), "the end of a late read")
        taken = stream.take_late()
    return taken


def drain(stream: Stream, size: int) -> None:
    """Drain as the worker does."""
    stream.drain(size)
    while (call := stream.call) is not None:
        wait_until(partial(call.has_ended, 1000), "the end of a late read")
        stream.drain(size)


class Piped:
    """A stream in whose pipe a test writes."""

    def __init__(self) -> None:
        read_end, self.write_end = os.pipe()
        self.ring = make_ring("a")
        self.stream = Stream("a", read_end, os.dup(self.ring))
        self.lines: list[str] = []

    def write(self, data: bytes, chunk: int = 1 << 16) -> None:
        os.write(self.write_end, data)
        while read(self.stream, chunk):
            self.pass_on()

    def drain(self, chunk: int) -> None:
        """Read all that is there and end the stream."""
        drain(self.stream, chunk)

    def pass_on(self) -> None:
        while self.stream.has_lines():
            assert self.stream.pass_on(self.take, 10)

    def take(self, lines: Sequence[str]) -> int:
        """As a log that takes at most two lines at once."""
        self.lines += lines[:2]
        return len(lines[:2])

    def kept(self) -> bytes:
        return since(self.ring).data

    def close(self) -> None:
        os.close(self.write_end)
        os.close(self.ring)
        self.stream.close()


@pytest.fixture
def piped() -> Iterator[Piped]:
    with closing(Piped()) as piped:
        yield piped


def as_kept(written: bytes) -> bytes:
    """Return the expected content of the ring: each mark ends the line that it is in, if there is one."""
    kept, *others = written.split(PROCESS_ENDED)
    for part in others:
        kept += b"" if kept.endswith(b"\n") or not kept else b"\n"
        kept += part
    return kept


@given(run=runs)
@example(run=([b"y" * (LONGEST_LINE + 1), PROCESS_ENDED, b"end"], 1))
@example(run=([b"a", "é".encode() * LONGEST_LINE, PROCESS_ENDED], 7))
@settings(max_examples=100, deadline=None)
def test_nothing_is_lost_and_nothing_is_made_up(run: tuple[list[bytes], int]) -> None:
    pieces, chunk = run
    before = open_numbers()
    with closing(Piped()) as piped:
        for piece in pieces:
            piped.write(piece, chunk)
        piped.drain(chunk)
        piped.pass_on()
        written = as_kept(b"".join(pieces))
        assert piped.kept() == written
        assert all(line.startswith("a: ") for line in piped.lines)
        texts = [line[3:] for line in piped.lines]
        assert all(len(text.encode()) <= LONGEST_LINE + 2 * len(CUT.encode()) for text in texts)
        expected = [line.removesuffix(b"\r").decode(errors="backslashreplace") for line in written.split(b"\n")]
        if not expected[-1]:
            expected.pop()  # the last one has its newline
        assert "\n".join(texts).replace(f"{CUT}\n{CUT}", "").split("\n") == list(
            map(without_commands, expected or [""])
        )
    assert open_numbers() == before


def test_a_long_line_is_cut_between_characters_and_marked(piped: Piped) -> None:
    piped.write("aé".encode() * LONGEST_LINE)
    piped.write(b" end\n")
    texts = [line[3:] for line in piped.lines]
    assert len(texts) == 4
    assert all(text.endswith(f"é{CUT}") or text.endswith(f"a{CUT}") for text in texts[:-1])
    assert [text.startswith(CUT) for text in texts] == [False, True, True, True]
    assert texts[-1].endswith(" end")


def test_last_words_are_a_line_of_their_own(piped: Piped) -> None:
    piped.write(b"one\nlast words")
    assert piped.lines == ["a: one"]
    piped.write(PROCESS_ENDED)
    assert piped.lines == ["a: one", "a: last words"]
    piped.write(PROCESS_ENDED + PROCESS_ENDED + b"the next process\n" + PROCESS_ENDED)
    assert piped.lines == ["a: one", "a: last words", "a: the next process"]
    assert piped.kept() == b"one\nlast words\nthe next process\n"


def test_a_worker_that_begins_within_a_line_ends_it(piped: Piped) -> None:
    """The one before was killed and had kept the beginning."""
    piped.write(b"last ")
    other = Stream("a", os.dup(piped.stream.fd), os.dup(piped.ring))
    os.write(piped.write_end, b"words" + PROCESS_ENDED + b"next\n")
    try:
        assert read(other, 1 << 16)
        assert other.pass_on(piped.take, 10)
    finally:
        other.close()
    assert piped.kept() == b"last words\nnext\n"
    assert piped.lines == ["a: words", "a: next"]


@pytest.mark.parametrize("written", [PROCESS_ENDED[:-1], b"abc\0", PROCESS_ENDED[:1] * 3])
def test_what_is_like_the_mark_is_not_lost(piped: Piped, written: bytes) -> None:
    piped.write(written)
    piped.write(b"more\n")
    assert piped.kept() == written + b"more\n"
    assert piped.lines == [f"a: {without_commands(written.decode())}more"]


def test_many_marks_cost_as_much_as_one(piped: Piped, monkeypatch: pytest.MonkeyPatch) -> None:
    appends: list[bytes] = []
    monkeypatch.setattr("workers.log.stream.append", lambda _ring, data: appends.append(data))
    piped.write(1000 * (b"x" + PROCESS_ENDED) + b"y\n" + PROCESS_ENDED + b"z\n")
    assert b"".join(appends) == 1000 * b"x\n" + b"y\nz\n"
    assert len(appends) <= 3
    assert piped.lines == [*1000 * ["a: x"], "a: y", "a: z"]


def test_reading_tells_of_bytes_of_none_now_and_of_the_end() -> None:
    read_end, write_end = os.pipe()
    stream = Stream("a", read_end, make_ring("a"))
    try:
        assert read(stream, 10) == 0
        os.write(write_end, b"x" * 15)
        assert [read(stream, 10), read(stream, 10), read(stream, 10)] == [10, 5, 0]
    finally:
        os.close(write_end)
    assert read(stream, 10) is None
    drain(stream, 10)
    stream.close()


def test_a_drain_in_pieces_does_not_cut_lines(piped: Piped) -> None:
    os.write(piped.write_end, b"a line in pieces\n" * 100)
    piped.drain(7)
    piped.pass_on()
    assert piped.lines == ["a: a line in pieces"] * 100


def test_what_came_after_a_late_read_is_drained(piped: Piped) -> None:
    while piped.stream.call is None:
        assert not piped.stream.read(100)
    call = piped.stream.call
    wait_until(partial(call.has_ended, 1000), "the end of a late read")
    os.write(piped.write_end, b"last words\n")
    piped.drain(100)
    piped.pass_on()
    assert piped.lines == ["a: last words"]


@pytest.mark.parametrize("killed", [1, MOST_KILLED])
def test_last_words_are_drained_although_children_are_killed(
    piped: Piped, monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    left = killed

    def start(fd: int, size: int, patience: int) -> PipeCall:
        nonlocal left
        left -= 1
        return killed_call() if left >= 0 else start_read(fd, size, patience)

    monkeypatch.setattr(stream, "start_read", start)
    os.write(piped.write_end, b"last words")
    piped.drain(100)
    piped.pass_on()
    assert piped.lines == ["a: last words"]


def test_a_drain_whose_children_are_all_killed_comes_to_an_end(
    piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "start_read", lambda _fd, _size, _patience: killed_call())
    os.write(piped.write_end, b"last words")
    piped.drain(100)
    assert piped.stream.is_over


def test_a_drain_of_one_that_writes_for_ever_comes_to_an_end() -> None:
    stream = Stream("a", os.open("/dev/zero", os.O_RDONLY), make_ring("a"))
    try:
        drain(stream, 1 << 16)
        assert stream.has_lines()
        assert len(stream._rest) == LARGEST + 1, "with a newline"
    finally:
        stream.close()


def test_a_line_that_is_refused_is_the_next_one(piped: Piped) -> None:
    os.write(piped.write_end, b"one\ntwo\nthree\n")
    read(piped.stream, 1 << 16)
    refused: list[str] = []

    def refuse(lines: Sequence[str]) -> int:
        refused.append(lines[0])
        return 0

    assert piped.stream.pass_on(piped.take, 1)
    assert not piped.stream.pass_on(refuse, 10)
    piped.pass_on()
    assert refused == ["a: two"]
    assert piped.lines == ["a: one", "a: two", "a: three"]


def test_a_service_floods_as_long_as_much_of_what_it_wrote_waits(piped: Piped) -> None:
    os.write(piped.write_end, b"line\n" * 4000)
    read(piped.stream, 1 << 16)
    assert piped.stream.floods
    piped.pass_on()
    assert not piped.stream.floods
