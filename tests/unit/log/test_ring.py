"""The ring that keeps the last of a service's output."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.log.ring import SIZE, START, Position, append, is_in_line, make_ring, since
from tests.unit.process.forked import open_numbers


@contextmanager
def fresh_ring() -> Iterator[int]:
    fd = make_ring("test")
    try:
        yield fd
    finally:
        os.close(fd)


def expected(written: bytes) -> bytes:
    """Return the part of all written data that the ring holds."""
    if len(written) <= SIZE:
        return written
    kept = written[-SIZE:]
    return kept[kept.find(b"\n") + 1 :]


# sizes that meet the end of the ring, and those of everyday lines
sizes = st.sampled_from([0, 1, 2, SIZE // 2, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE]) | st.integers(0, 3000)


def text(number: int, size: int) -> bytes:
    """Different bytes for each write, with newlines at odd places."""
    pattern = b"%d:abcdefghijklmnopqrstuvwxyz\n" % number
    return (pattern * (size // len(pattern) + 1))[:size]


@given(writes=st.lists(sizes, max_size=12))
@settings(max_examples=150, deadline=None)
def test_against_all_that_was_written(writes: list[int]) -> None:
    model = bytearray()
    with fresh_ring() as fd:
        for number, size in enumerate(writes):
            data = text(number, size)
            append(fd, data)
            model += data
            assert since(fd).data == expected(bytes(model))


@pytest.mark.parametrize("step", [1, 7, 4093])
def test_many_turns_round_the_ring(step: int) -> None:
    model = b""
    with fresh_ring() as fd:
        for number in range(3 * SIZE // step if step > 1 else 100):
            data = text(number, step)
            append(fd, data)
            model += data
        assert since(fd).data == expected(model)


def test_a_new_one_is_empty() -> None:
    with fresh_ring() as fd:
        assert since(fd).data == b""


def test_older_lines_go_whole() -> None:
    lines = [b"line %d\n" % number for number in range(20_000)]
    with fresh_ring() as fd:
        for line in lines:
            append(fd, line)
        kept = since(fd).data.splitlines(keepends=True)
    assert kept == lines[-len(kept) :]
    assert SIZE - 20 < sum(map(len, kept)) <= SIZE


def test_one_endless_line_is_kept_as_it_is() -> None:
    with fresh_ring() as fd:
        append(fd, b"x" * (SIZE + 100))
        assert since(fd).data == b"x" * SIZE


def test_of_a_line_that_is_longer_than_the_ring_the_end_is_kept() -> None:
    with fresh_ring() as fd:
        append(fd, b"before\n" + "€".encode() * SIZE + b"the end\n")
        piece = since(fd)
        assert piece.cut
        assert piece.data.decode() == "€" * ((SIZE - 8) // 3) + "the end\n"
        assert SIZE - 3 < len(piece.data) <= SIZE
        assert since(fd, piece.end).data == b""
        append(fd, b"next\n")
        assert since(fd).data == b"next\n"
        assert not since(fd).cut
        assert not since(fd, piece.end).cut


def test_whether_the_last_line_has_an_end() -> None:
    with fresh_ring() as fd:
        assert not is_in_line(fd)
        append(fd, b"one\ntwo")
        assert is_in_line(fd)
        append(fd, b"\n")
        assert not is_in_line(fd)
        append(fd, b"x" * 2 * SIZE)
        assert is_in_line(fd)


def test_a_line_without_an_end_is_there() -> None:
    with fresh_ring() as fd:
        append(fd, b"done\nnot yet")
        assert since(fd).data == b"done\nnot yet"


def test_it_goes_on_in_another_process_and_through_another_descriptor() -> None:
    with fresh_ring() as fd:
        append(fd, b"one\n")
        pid = os.fork()
        if pid == 0:
            append(os.dup(fd), b"two\n")
            os._exit(0)
        os.waitpid(pid, 0)
        append(fd, b"three\n")
        assert since(fd).data == b"one\ntwo\nthree\n"


@pytest.mark.parametrize("before", [10, SIZE - 5, SIZE, 2 * SIZE + 7])
@pytest.mark.parametrize("meanwhile", [1, 30, SIZE - 1, SIZE, SIZE + 50])
def test_what_is_written_while_it_is_read_never_looks_old(
    before: int, meanwhile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer gets in between the reading of the count and that of the data."""
    with fresh_ring() as fd:
        old = b"".join(b"old %06d\n" % number for number in range(before // 11 + 1))[:before]
        append(fd, old)
        pread = os.pread

        def slow_pread(fd: int, size: int, offset: int) -> bytes:
            if size == SIZE:
                monkeypatch.setattr(os, "pread", pread)
                append(fd, b"N" * meanwhile)
            return pread(fd, size, offset)

        monkeypatch.setattr(os, "pread", slow_pread)
        seen = since(fd).data
    assert b"N" not in seen
    assert old.endswith(seen)


@pytest.mark.parametrize("before", [100, SIZE, 2 * SIZE + 7])
@pytest.mark.parametrize("size", [1, 500, SIZE])
def test_a_writer_that_is_killed_half_way_leaves_nothing_torn(
    before: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data is written, but it did not come to say so."""
    with fresh_ring() as fd:
        old = b"".join(b"old %06d\n" % number for number in range(before // 11 + 1))[:before]
        append(fd, old)
        pwrite = os.pwrite
        headers = 0

        def killed_pwrite(fd: int, data: bytes, offset: int) -> int:
            nonlocal headers
            headers += offset == 0
            if headers == 2:
                raise KeyboardInterrupt
            return pwrite(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", killed_pwrite)
        with pytest.raises(KeyboardInterrupt):
            append(fd, b"N" * size)
        monkeypatch.undo()
        seen = since(fd).data
        assert b"N" not in seen
        assert old.endswith(seen)
        # and the next one goes on where it began
        append(fd, b"\nnext\n")
        assert since(fd).data.endswith(b"next\n")
        assert b"N" not in since(fd).data
        append(fd, text(1, SIZE))
        assert since(fd).data == expected(b"\n" + text(1, SIZE))


# from a position on


def test_what_came_since() -> None:
    with fresh_ring() as fd:
        assert since(fd).end == START
        append(fd, b"one\ntw")
        first = since(fd)
        assert (first.data, first.lost, first.end) == (b"one\ntw", 0, Position(6, 1))
        assert since(fd, first.end).data == b""
        assert since(fd, first.end).end == first.end
        append(fd, b"o\nthree\n")
        second = since(fd, first.end)
        assert (second.data, second.lost, second.end) == (b"o\nthree\n", 0, Position(14, 3))


@given(writes=st.lists(st.tuples(sizes, st.booleans()), max_size=12))
@settings(max_examples=150, deadline=None)
def test_every_line_is_read_or_counted_as_lost(writes: list[tuple[int, bool]]) -> None:
    """A reader that looks now and then has all lines in the end, or knows how many it has not."""
    written = bytearray()
    read, lost, position = b"", 0, START
    with fresh_ring() as fd:
        for number, (size, looks) in enumerate([*writes, (0, True)]):
            data = text(number, size)
            append(fd, data)
            written += data
            if looks:
                piece = since(fd, position)
                if piece.lost:
                    assert written.endswith(piece.data)
                    assert written[: len(written) - len(piece.data)].endswith(b"\n")
                else:
                    assert written[position.byte :] == piece.data
                read, lost, position = read + piece.data, lost + piece.lost, piece.end
        assert position == Position(len(written), written.count(b"\n"))
        assert read.count(b"\n") + lost == written.count(b"\n")


def test_a_reader_of_another_ring_begins_anew() -> None:
    with fresh_ring() as fd:
        append(fd, b"one\n")
        assert since(fd, Position(1000, 50)).data == b"one\n"


def test_what_is_torn_is_left_for_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that there is is overwritten while it is read."""
    with fresh_ring() as fd:
        append(fd, b"old\n")
        pread = os.pread

        def slow_pread(fd: int, size: int, offset: int) -> bytes:
            if size == SIZE:
                monkeypatch.setattr(os, "pread", pread)
                append(fd, b"new\n" * SIZE)
            return pread(fd, size, offset)

        monkeypatch.setattr(os, "pread", slow_pread)
        assert since(fd).data == b""
        piece = since(fd)
        assert piece.data == b"new\n" * (SIZE // 4 - 1)
        assert piece.lost == 1 + SIZE - len(piece.data) // 4


@pytest.mark.parametrize("name", ["a", "x" * 1000, "\u00e4" * 200])
def test_any_name_will_do(name: str) -> None:
    os.close(make_ring(name))


def test_nothing_is_left_where_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _size: int) -> None:
        raise OSError(28, "No space left on device")

    before = open_numbers()
    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(OSError, match="No space"):
        make_ring("a")
    assert open_numbers() == before
