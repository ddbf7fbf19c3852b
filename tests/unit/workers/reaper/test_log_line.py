from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.reaper.rows import counted
from workers.reaper.statistics import Statistics, log_line


def test_everything_that_can_be_known() -> None:
    statistics = (1_500_000, 1_200_000, 300_000, 87 << 20, 1, 2, 1, 9, 210, 2)
    line = log_line("foo/bar", statistics, 1795300800.0, 12.5)
    assert line == (
        "foo/bar: since=2026-11-21T22:40:00Z cpu=1.5s/1.2s/0.3s[12%] memory=87M reclaim=3 oom=1 procs=9"
        " forks=210[17/s] procs_rejected=2"
    )


def test_nothing_is_left_out_that_is_known_to_be_nothing() -> None:
    statistics = (0,) * 10
    assert log_line("a", statistics, None, None) == "a: cpu=0.0s/0.0s/0.0s memory=0M procs=0 forks=0"


def test_what_is_not_known_is_absent() -> None:
    assert log_line("a", counted(), None, None) == "a:"
    assert log_line("a", counted(times=(7, None, None)), None, None) == "a: cpu=0.0s"
    assert log_line("a", counted(memory_events_high=3), None, None) == "a: reclaim=3"
    assert log_line("a", counted(memory_events_max=4), None, None) == "a: reclaim=4"


@pytest.mark.parametrize(
    ("used", "age", "share"),
    [(1e6, 100.0, "[1%]"), (999_999, 100.0, ""), (1e6, 0.5, "[200%]"), (1e6, 0.0, ""), (129_000, 1.0, "[12%]")],
)
def test_the_share_of_a_processor(used: float, age: float, share: str) -> None:
    line = log_line("a", counted(times=(int(used), None, None)), 0.0, age)
    assert line.endswith(f"s{share}")


@pytest.mark.parametrize(
    ("used", "shown"),
    [(0, "0.0s"), (1_234_607, "1.2s"), (49_999, "0.0s"), (50_001, "0.1s"), (12_000_000, "12.0s"), (999_999, "1.0s")],
)
def test_times_have_one_decimal(used: int, shown: str) -> None:
    assert log_line("a", counted(times=(used, None, None)), None, None) == f"a: cpu={shown}"


@pytest.mark.parametrize(
    ("forks", "age", "rate"),
    [
        (210, 70.0, "[3/s]"),
        (199, 100.0, "[2/s]"),
        (149, 100.0, "[1/s]"),
        (7, 100.0, "[4.2/m]"),
        (1, 100.0, "[0.6/m]"),
        (1, 101.0, ""),
        (5, 0.0, ""),
        (0, 10.0, ""),
    ],
)
def test_the_rate_of_forks(forks: int, age: float, rate: str) -> None:
    assert log_line("a", counted(pids_forks=forks), 0.0, age) == (f"a: since=1970-01-01T00:00:00Z forks={forks}{rate}")


@pytest.mark.parametrize(
    ("peak", "shown"), [(0, "0M"), (1 << 19, "0M"), ((1 << 19) + 1, "1M"), (1 << 20, "1M"), (91_750_400, "87M")]
)
def test_memory_is_rounded(peak: int, shown: str) -> None:
    assert log_line("a", counted(memory_peak=peak), None, None) == f"a: memory={shown}"


def test_a_name_makes_no_line_of_its_own() -> None:
    assert log_line("a\nb: cpu=1s \x1b\udcff ü", counted(), None, None) == "a\\nb: cpu=1s \\x1b\\xff ü:"


NUMBER = st.none() | st.integers(0, 2**64 - 1)
SHAPE = re.compile(
    r"x:( since=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)?( cpu=\d+\.\ds(/\d+\.\ds){0,2}(\[[1-9]\d*%\])?)?"
    r"( memory=\d+M)?( reclaim=[1-9]\d*)?( oom=[1-9]\d*)?( procs=\d+)?( forks=\d+(\[[1-9]\d*/s\]|\[\d+\.\d/m\])?)?"
    r"( procs_rejected=[1-9]\d*)?"
)


@given(st.tuples(*[NUMBER] * 10), st.none() | st.floats(0, 4e9), st.none() | st.floats(0, 1e9))
def test_any_statistics_make_a_line_of_this_shape(
    statistics: Statistics, btime: float | None, age: float | None
) -> None:
    assert SHAPE.fullmatch(log_line("x", statistics, btime, age))
