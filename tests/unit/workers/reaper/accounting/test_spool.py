from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.process.requirements import needs_root
from workers.reaper.accounting import spool as module
from workers.reaper.accounting.spool import Spool
from workers.reaper.options import SpoolError

LIMIT = 1 << 20


def again(spool: Spool, folder: Path, limit: int = LIMIT) -> Spool:
    """As a process would that comes after one that was killed: nothing was closed in order."""
    os.close(spool._lock)
    return Spool(str(folder), limit)


def lines(spool: Spool) -> list[bytes]:
    return [line for batch in spool.batches for line in spool.read(batch)]


def test_rows_come_in_batches_and_in_their_order(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), LIMIT)
    spool.append([b"1\n"])
    spool.append([b"2\n"])
    assert not lines(spool)
    spool.close_batch()
    spool.append([b"3\n"])
    spool.close_batch()
    spool.close_batch()
    first, second = list(spool.batches)
    assert spool.read(first) == [b"1", b"2"]
    assert spool.read(second) == [b"3"]
    spool.remove(first)
    assert list(spool.batches) == [second]
    assert spool.size == 2
    spool.close()


def test_what_a_killed_process_has_left(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), LIMIT)
    spool.append([b"1\n"])
    spool.close_batch()
    spool.append([b"2\n"])
    spool.append([b"3\n"])
    spool = again(spool, tmp_path)
    assert lines(spool) == [b"1", b"2", b"3"]
    spool.append([b"4\n"])
    spool.close_batch()
    assert lines(spool) == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("written", "last", "rest"),
    [
        (b"1\n2\n", b"2", [b"1", b"2"]),
        (b"1\n2\n3", b"2", [b"1", b"2"]),
        (b"1\n", b"1", [b"1"]),
        (b"1", None, []),
        (b"", None, []),
    ],
)
def test_a_line_that_was_cut_off_is_dropped(
    tmp_path: Path, written: bytes, last: bytes | None, rest: list[bytes]
) -> None:
    (tmp_path / "0000000000000007.rows").write_bytes(written)
    spool = Spool(str(tmp_path), LIMIT)
    assert spool.last_lines(1) == ([] if last is None else [last])
    assert lines(spool) == spool.last_lines(9) == rest
    assert spool.size == sum(len(line) + 1 for line in rest)
    if last is not None:
        spool.drop_line(last)
        assert lines(spool) == rest[:-1]
        assert spool.rows == again(spool, tmp_path).rows == len(rest) - 1


def test_the_last_rows_can_be_taken_back(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), LIMIT)
    spool.append([b"1\n"])
    spool.append([b"22\n", b"333\n", b"4444\n", b"55555\n"])
    spool.take_back([0, 2])
    assert spool.rows == 3
    spool.append([b"6\n"])
    spool.take_back([0])
    spool.append([b"7\n"])
    spool.close_batch()
    assert lines(spool) == [b"1", b"333", b"55555", b"7"]
    assert spool.rows == again(spool, tmp_path).rows == 4


def test_a_segment_that_is_long_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT", 4)
    spool = Spool(str(tmp_path), LIMIT)
    for number in range(5):
        spool.append([b"%d\n" % number])
    assert [spool.read(batch) for batch in spool.batches] == [[b"0", b"1"], [b"2", b"3"]]


def test_more_than_the_limit_is_lost_and_counted(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 10)
    for _ in range(4):
        spool.append([b"1234\n"])
    assert spool.lost == 2
    spool.take_back([0])
    assert spool.lost == 1
    spool.close_batch()
    assert lines(spool) == [b"1234"] * 2
    spool.remove(spool.batches[0])
    spool.append([b"1234\n", b"56\n", b"789\n", b"0\n"])
    assert spool.lost == 3, "from the first that has no room on"
    spool.take_back([1, 3])
    assert spool.lost == 2
    spool.close_batch()
    assert lines(spool) == [b"1234"]


def cut_writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A disk that takes so many bytes from now on."""
    room = 1 << 30
    write = os.pwrite

    def limited(fd: int, data: bytes, offset: int) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(28, "No space left on device")
        written = write(fd, data[:room], offset)
        room -= written
        return written

    def leave(size: int) -> None:
        nonlocal room
        room = size

    monkeypatch.setattr(os, "pwrite", limited)
    return leave


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave = cut_writes(monkeypatch)
    spool = Spool(str(tmp_path), LIMIT)
    spool.append([b"1\n"])
    leave(3)
    spool.append([b"two\n"])
    spool.append([b"three\n"])
    assert spool.in_memory == [b"two\n", b"three\n"]
    spool.append([b"four\n", b"five\n", b"six\n"])
    spool.take_back([0, 2])
    assert spool.in_memory == [b"two\n", b"three\n", b"five\n"]
    assert (tmp_path / "0000000000000001.rows").read_bytes() == b"1\n", "half a row is none"
    spool.close_batch()
    assert lines(spool) == [b"1"]
    leave(1 << 20)
    spool.append([b"5\n"])
    spool.close_batch()
    assert sorted(lines(spool)) == [b"1", b"5", b"five", b"three", b"two"]
    assert spool.in_memory == []


def test_memory_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IN_MEMORY", 2)
    cut_writes(monkeypatch)(0)
    spool = Spool(str(tmp_path), LIMIT)
    spool.append([b"1\n"])
    spool.append([b"2\n", b"3\n"])
    assert (spool.in_memory, spool.lost) == ([b"1\n", b"2\n"], 1)


def test_one_reaper_uses_it_at_a_time(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), LIMIT)
    with pytest.raises(SpoolError, match="another"):
        Spool(str(tmp_path), LIMIT)
    spool.close()
    Spool(str(tmp_path), LIMIT).close()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="cannot use"):
        Spool(str(tmp_path / "a" / "b"), LIMIT)
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="cannot use"):
        Spool(str(tmp_path / "file"), LIMIT)


@needs_root
def test_nor_can_one_that_a_stranger_can_have_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    folder = tmp_path / "spool"
    folder.mkdir()
    os.chown(folder, 1300, 1300)
    with pytest.raises(SpoolError, match=f"'{folder}' belongs to uid 1300, who can have put it there"):
        Spool(str(folder), LIMIT)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "a.rows", "12.rows"):
        (tmp_path / name).touch()
    assert Spool(str(tmp_path), LIMIT).batches == ()


def test_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave = cut_writes(monkeypatch)
    spool = Spool(str(tmp_path), LIMIT)
    for _ in range(3):
        spool.append([b"1\n"])
    spool.take_back([0])
    assert spool.rows == 2
    spool.close_batch()
    spool.append([b"2\n"])
    assert spool.rows == 3
    leave(1)
    spool.append([b"3\n"])
    assert spool.rows == 4, "one of them in memory"
    spool.remove(spool.batches[0])
    assert spool.rows == 2
    spool.close()
    assert Spool(str(tmp_path), LIMIT).rows == 1, "that of an earlier process"


def test_rows_of_many_earlier_segments_are_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COUNTED", 2)
    for number, text in enumerate((b"12\n34\n56\n78\n", b"1\n1\n1\n", b"123\n123\n"), 1):
        (tmp_path / f"{number:016}.rows").write_bytes(text)
    assert Spool(str(tmp_path), LIMIT).rows == 4 + 5, "12 bytes are as many rows as the 14 bytes with 5 rows make"


def test_a_segment_that_was_removed_is_lost_and_counted(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), LIMIT)
    spool.append([b"1\n"])
    spool.append([b"2\n"])
    spool.close_batch()
    (batch,) = spool.batches
    (tmp_path / batch).unlink()
    with pytest.raises(FileNotFoundError):
        spool.read(batch)
    assert spool.lose(batch) == 2
    assert (spool.lost, spool.rows, spool.size, spool.batches) == (2, 0, 0, ())


def test_why_a_row_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave = cut_writes(monkeypatch)
    spool = Spool(str(tmp_path), LIMIT)
    assert spool.trouble == ""
    for room in (0, 1):
        leave(room)
        spool.append([b"12\n"])
        assert spool.trouble == "No space left on device"
    leave(100)
    spool.append([b"12\n"])
    assert spool.trouble == ""
