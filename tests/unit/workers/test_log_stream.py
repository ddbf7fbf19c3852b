"""One stream of the log worker: lines out of whatever pieces come."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.log.logger import log
from supervisor.log.ring import make_ring, since
from tests.unit.process.forked import open_numbers
from workers.log.stream import LONGEST_LINE, Stream


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    handlers, level = log.handlers[:], log.level
    log.handlers[:] = [recorder]
    log.setLevel(logging.INFO)
    yield recorder
    log.handlers[:] = handlers
    log.setLevel(level)


pieces = st.lists(
    st.binary(min_size=1, max_size=20)
    | st.sampled_from([b"\n", b"a\nb\n", b"x" * LONGEST_LINE, b"y" * (LONGEST_LINE + 1), b"z" * 3 * LONGEST_LINE]),
    max_size=10,
)


@given(pieces=pieces, chunk=st.sampled_from([1, 7, 4096, 1 << 16]))
@settings(max_examples=100, deadline=None)
def test_nothing_is_lost_and_nothing_is_made_up(recorder: Recorder, pieces: list[bytes], chunk: int) -> None:
    recorder.lines.clear()
    before = open_numbers()
    read_end, write_end = os.pipe()
    ring = make_ring("a")
    stream = Stream("a", read_end, os.dup(ring))
    try:
        for piece in pieces:
            os.write(write_end, piece)
            while stream.read(chunk):
                pass
        stream.drain(chunk)
        written = b"".join(pieces)
        assert since(ring).data == written
        assert all(line.startswith("a: ") for line in recorder.lines)
        texts = [line[3:] for line in recorder.lines]
        assert "".join(texts) == "".join(part.decode(errors="backslashreplace") for part in _cut(written))
        assert sum(text != "" for text in texts) >= sum(line != b"" for line in written.split(b"\n"))
        for line, text in zip(written.split(b"\n"), texts, strict=False):
            if len(line) > LONGEST_LINE:
                break
            assert text == line.decode(errors="backslashreplace")
    finally:
        os.close(write_end)
        os.close(ring)
        stream.close()
    assert open_numbers() == before


def _cut(written: bytes) -> Iterator[bytes]:
    """The lines in pieces of what is passed on at once."""
    for line in written.split(b"\n"):
        for at in range(0, len(line), LONGEST_LINE):
            yield line[at : at + LONGEST_LINE]


def test_reading_tells_of_bytes_of_none_now_and_of_the_end(recorder: Recorder) -> None:
    read_end, write_end = os.pipe()
    stream = Stream("a", read_end, make_ring("a"))
    try:
        assert stream.read(10) == 0
        os.write(write_end, b"x" * 15)
        assert [stream.read(10), stream.read(10), stream.read(10)] == [10, 5, 0]
    finally:
        os.close(write_end)
    assert stream.read(10) is None
    stream.drain(10)
    stream.close()


def test_a_drain_of_one_that_writes_for_ever_comes_to_an_end(recorder: Recorder) -> None:
    recorder.lines.clear()
    stream = Stream("a", os.open("/dev/zero", os.O_RDONLY), make_ring("a"))
    try:
        stream.drain(1 << 16)
    finally:
        stream.close()
    assert recorder.lines
