"""The status text."""

from __future__ import annotations

import pytest

from supervisor.lifecycle.life import State
from supervisor.manager.announce import NAMES, summary


@pytest.mark.parametrize(
    ("states", "text"),
    [
        ("", "0 of 0 services running"),
        ("running running", "2 of 2 services running"),
        ("running reloading", "2 of 2 services running"),
        ("running starting waiting", "1 of 3 services running, 1 starting, 1 waiting"),
        ("running stopping done done stopped", "1 of 5 services running, 1 stopping, 2 done, 1 stopped"),
        ("failed running", "1 of 2 services running; failed: s0"),
        ("backoff failed failed done", "0 of 4 services running, 1 done; failed: s1, s2; backoff: s0"),
    ],
)
def test_who_runs_and_who_does_not(states: str, text: str) -> None:
    assert summary((f"s{number}", State(state)) for number, state in enumerate(states.split())) == text


def test_every_state_is_told() -> None:
    for state in State:
        assert state.value in summary([("x", state)]) or state is State.RELOADING


def test_not_all_names_of_a_long_list() -> None:
    text = summary((f"s{number}", State.FAILED) for number in range(NAMES + 3))
    assert text == f"0 of {NAMES + 3} services running; failed: s0, s1, s2, s3, s4 and 3 more"
