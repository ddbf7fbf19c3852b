"""The wait between failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.definitions.service import Backoff
from supervisor.lifecycle.transitions import delay

backoffs = st.builds(
    Backoff,
    first=st.floats(0.001, 10),
    factor=st.floats(1, 1e9),
    max=st.floats(10, 1e6),
    jitter=st.floats(0, 1),
)
spreads = st.floats(-1, 1)


def test_the_default_ones() -> None:
    waits = [delay(Backoff(), failures, 0) for failures in range(1, 12)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])


@given(backoff=backoffs, failures=st.integers(1, 100_000), spread=spreads)
def test_it_stays_within_first_and_max_and_the_jitter(backoff: Backoff, failures: int, spread: float) -> None:
    wait = delay(backoff, failures, spread)
    assert backoff.first * (1 - backoff.jitter) <= wait <= backoff.max * (1 + backoff.jitter)


@given(backoff=backoffs, failures=st.integers(1, 2000))
def test_it_never_shrinks_with_another_failure(backoff: Backoff, failures: int) -> None:
    assert delay(backoff, failures, 0) <= delay(backoff, failures + 1, 0)


@given(factor=st.floats(1.001, 1e9))
def test_it_gets_to_the_maximum_whatever_the_factor(factor: float) -> None:
    assert delay(Backoff(first=0.1, factor=factor, max=30), 10_000, 0) == 30


@given(backoff=backoffs, failures=st.integers(1, 50), spread=spreads)
def test_the_spread_moves_it_by_its_share_of_the_jitter(backoff: Backoff, failures: int, spread: float) -> None:
    even = delay(backoff, failures, 0)
    assert delay(backoff, failures, spread) == pytest.approx(even + even * backoff.jitter * spread)


def test_a_maximum_below_the_first_wait_wins() -> None:
    assert delay(Backoff(first=5, max=2, jitter=0), 1, 0) == 2


@pytest.mark.parametrize("failures", [0, -1])
def test_there_is_no_wait_without_a_failure(failures: int) -> None:
    with pytest.raises(ValueError, match="no wait without a failure"):
        delay(Backoff(), failures, 0)
