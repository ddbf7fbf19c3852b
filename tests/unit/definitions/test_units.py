from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.definitions import scalars
from supervisor.definitions.problems import InvalidValue

SIZE_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
DURATION_UNITS = {"": 1000, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
WHITE = st.sampled_from(["", " ", "  "])


@given(st.integers(0, 2**22), st.sampled_from(sorted(SIZE_UNITS)), st.booleans(), WHITE)
def test_size_is_number_times_unit(number: int, unit: str, upper: bool, white: str) -> None:
    text = f"{white}{number}{white}{unit.upper() if upper else unit}{white}"
    assert scalars.size(text) == number << SIZE_UNITS[unit]


@given(st.integers(0, scalars.LARGEST))
def test_plain_size_is_bytes(number: int) -> None:
    assert scalars.size(number) == scalars.size(str(number)) == number


@given(st.integers(0, 36_000), st.sampled_from(sorted(DURATION_UNITS)), st.booleans())
def test_duration_is_number_times_unit(number: int, unit: str, upper: bool) -> None:
    text = f"{number}{unit.upper() if upper else unit}"
    assert scalars.duration(text) == pytest.approx(number * DURATION_UNITS[unit] / 1000)


@given(st.integers(0, 10**7))
def test_milliseconds_and_fractions_are_the_same_number(number: int) -> None:
    assert scalars.duration(f"{number}ms") == scalars.duration(f"{number // 1000}.{number % 1000:03}") == number / 1000


@given(st.floats(0, scalars.LONGEST_S))
def test_plain_duration_is_seconds(seconds: float) -> None:
    assert scalars.duration(seconds) == seconds


@given(st.one_of(st.text(max_size=20), st.floats(), st.integers(), st.booleans(), st.none(), st.lists(st.integers())))
def test_anything_is_a_number_in_range_or_bad(value: object) -> None:
    for unit in (scalars.size, scalars.duration, scalars.count):
        with contextlib.suppress(InvalidValue):
            assert 0 <= unit(value) <= scalars.LARGEST


@pytest.mark.parametrize("text", ["", "k", "-1", "1kb", "1.5k", "0x10", "1 k k", "\uff11k", "1e3", "9" * 19 + "t"])
def test_not_a_size(text: str) -> None:
    with pytest.raises(InvalidValue):
        scalars.size(text)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 second", "1.s.", "1,5s", "inf", "nan", "1us", "1e3", "999999d"])
def test_not_a_duration(text: str) -> None:
    with pytest.raises(InvalidValue):
        scalars.duration(text)


@pytest.mark.parametrize("value", [True, False, 1.5, -1, 2**63, "1.0", "", None, float("nan")])
def test_not_a_count(value: object) -> None:
    with pytest.raises(InvalidValue):
        scalars.count(value)


def test_unlimited() -> None:
    assert scalars.is_unlimited("unlimited")
    assert scalars.is_unlimited("Infinity")
    assert not scalars.is_unlimited("unlimit")
    assert not scalars.is_unlimited(None)
