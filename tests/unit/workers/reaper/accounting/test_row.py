from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.reaper.rows import NOVEMBER, ROW, SCOPE, encode, row
from workers.reaper.accounting.row import COLUMNS, LARGEST, decode, line_start, make_line, text, values
from workers.reaper.statistics import Record

COUNT = st.none() | st.integers(0, 2**64 - 1)
TEXT = st.binary().map(lambda data: data.decode(errors="surrogateescape"))


@given(
    st.builds(
        Record,
        TEXT,
        TEXT,
        st.integers(1, 2**64 - 1),
        COUNT,
        st.none() | st.floats(0, 1e10),
        st.floats(0, 1e10),
        st.tuples(*[st.none() | st.integers(0, LARGEST)] * 10),
        st.dictionaries(TEXT, TEXT, max_size=3),
    )
)
def test_what_is_written_down_is_read_again_and_every_database_can_keep_it(record: Record) -> None:
    line = make_line(line_start("host", 'boot"'), record)
    assert line.count(b"\n") == 1
    assert json.loads(line)[:2] == ["host", 'boot"']
    row = decode(line)
    assert (row.ended, row.btime) == (record.ended, record.btime)
    assert list(row.xattrs) == list(dict.fromkeys(map(text, record.xattrs)))
    assert row.statistics == record.statistics
    for value in values(row):
        assert not isinstance(value, int) or value <= LARGEST
        assert not isinstance(value, str) or "\0" not in value
    row.path.encode()


def test_columns_are_in_their_place() -> None:
    statistics = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    record = Record("/s/a\udcff", "/s", 11, 12, 13.0, NOVEMBER, statistics, {"account": "x\0y"})
    row = decode(make_line(line_start("h", "b"), record))
    assert dict(zip(COLUMNS, (*values(row), row.xattrs), strict=True)) == {
        "host": "h",
        "boot": "b",
        "cgroup": 11,
        "ended": NOVEMBER,
        "parent": 12,
        "path": "/s/a\\xff",
        "scope": "/s",
        "btime": 13.0,
        "cpu_usage_usec": 1,
        "cpu_user_usec": 2,
        "cpu_system_usec": 3,
        "memory_peak": 4,
        "memory_events_high": 5,
        "memory_events_max": 6,
        "memory_events_oom": 7,
        "pids_peak": 8,
        "pids_forks": 9,
        "pids_events_max": 10,
        "xattrs": {"account": "x\\x00y"},
    }


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[1,2]",
        b"\xff",
        json.dumps([SCOPE]).encode(),
        encode(ROW._replace(host=None)),  # type: ignore[arg-type]
        encode(ROW._replace(path=["a"])),  # type: ignore[arg-type]
        encode(row(1, pids_peak={})),
        encode(ROW._replace(xattrs="a")),  # type: ignore[arg-type]
        encode(ROW._replace(ended="now")),  # type: ignore[arg-type]
        encode(ROW._replace(ended=1e300)),
        encode(ROW._replace(ended=-1.0)),
        encode(ROW).removesuffix(b"\n") + encode(ROW),
        encode(ROW).removesuffix(b"\n") + b" x",
    ],
)
def test_what_is_no_row(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of JSON, of UTF-8 or ours
        decode(line)
