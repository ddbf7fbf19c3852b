"""The life of a service, written down and read again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.lifecycle.life import Cause, Life, State, Step, Then
from supervisor.takeover.records import life_record, read_life

times = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**40)
lives = st.builds(
    Life,
    state=st.sampled_from(State),
    since=times,
    reason=st.text(),
    deadline=st.none() | times,
    watchdog_at=st.none() | times,
    up_since=st.none() | times,
    asked=st.none() | times,
    began=st.none() | times,
    came_up=st.none() | times,
    cause=st.sampled_from(Cause),
    step=st.sampled_from(Step),
    then=st.sampled_from(Then),
    killed=st.booleans(),
    failures=counts,
    restarts=counts,
    starts=counts,
)


@given(lives)
def test_it_comes_back_as_it_was(life: Life) -> None:
    again = read_life(json.loads(json.dumps(life_record(life))))
    assert again == life
    # equal is not enough: a text that is equal to a member would match nothing in the machine
    assert [type(each) for each in (again.state, again.step, again.then, again.cause)] == [State, Step, Then, Cause]


def test_one_that_never_started_has_nothing_to_tell() -> None:
    assert life_record(Life()) == {}
    assert read_life({}) == Life()


@pytest.mark.parametrize("record", [{"state": "confused"}, {"step": "?"}, {"then": None}, {"mood": "good"}])
def test_what_another_version_knows_is_an_error(record: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        read_life(record)
