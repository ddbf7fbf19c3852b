from __future__ import annotations

from pathlib import Path

import pytest

from workers.accessory.id_map import (
    MOST_BYTES,
    MOST_LINES,
    Extent,
    Ids,
    is_within,
    parse_ids,
    parse_map,
    subordinate_ids,
)
from workers.accessory.protocol import Refused


def test_a_map_is_lines_of_three_numbers() -> None:
    assert parse_map(b"0 1000 1", "uid_map") == [Extent(0, 1000, 1)]
    assert parse_map(b" 0\t1000 1 \n1 100000 65536\n", "uid_map") == [Extent(0, 1000, 1), Extent(1, 100000, 65536)]


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", b"0 0", b"0 0 1 1", b"a 0 1", b"0 0 -1", b"0 0 0", b"0 0 1\0", b"0 0 1\n\n0 0 1", b"0x0 0 1",
     b"0 4294967295 1", b"4294967295 0 1", b"4294967296 0 1", b"4294967294 0 2", b"0 0 4294967296",
     b"0 4294967294 2", b"0 99999999999 1", b"0 0 1\r\n", "0 \u0661 1".encode()],
)  # fmt: skip
def test_what_is_no_map_is_refused(text: bytes) -> None:
    with pytest.raises(Refused, match="malformed uid_map"):
        parse_map(text, "uid_map")


@pytest.mark.parametrize("text", [b"0 0 1" + b" " * MOST_BYTES, b"0 0 1\n" * MOST_LINES + b"0 0 1"])
def test_a_map_is_as_long_as_the_kernel_takes_it(text: bytes) -> None:
    with pytest.raises(Refused, match="uid_map is too long"):
        parse_map(text, "uid_map")
    assert len(parse_map((b"0 0 1\n" * MOST_LINES).rjust(MOST_BYTES), "uid_map")) == MOST_LINES


@pytest.mark.parametrize(
    ("extent", "allowed", "within"),
    [
        (Extent(0, 10, 5), [Ids(10, 14)], True),
        (Extent(0, 10, 6), [Ids(10, 14)], False),
        (Extent(0, 9, 2), [Ids(10, 14)], False),
        (Extent(0, 10, 10), [Ids(15, 19), Ids(10, 14)], True),  # ranges that touch
        (Extent(0, 10, 10), [Ids(10, 13), Ids(15, 19)], False),
        (Extent(0, 10, 10), [Ids(0, 12), Ids(11, 30)], True),
        (Extent(0, 0, 1), [], False),
    ],
)
def test_what_is_within(extent: Extent, allowed: list[Ids], within: bool) -> None:
    assert is_within(extent, allowed) is within


def test_subordinate_ids_are_by_name_and_by_number(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("ann:100000:65536\nbob:200000:10\n1000:300000:5\nann:x:5\nann:1\n:7:7\nann:5:0\n\n")
    assert subordinate_ids(str(path), 1000, "ann") == [Ids(100000, 165535), Ids(300000, 300004)]
    assert subordinate_ids(str(path), 1000, "") == [Ids(300000, 300004)]
    assert subordinate_ids(str(tmp_path / "none"), 1000, "ann") == []


def test_ranges_of_options() -> None:
    assert parse_ids("100000-165535") == Ids(100000, 165535)
    assert parse_ids("7") == Ids(7, 7)


@pytest.mark.parametrize("text", ["", "7-", "-7", "9-8", "a-b", "0-4294967295", "1-2-3", " 1-2"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match="is not a range"):
        parse_ids(text)
