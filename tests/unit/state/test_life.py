"""The life of a service, written down and read again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.definitions.service import Service
from supervisor.lifecycle.life import Cause, Life, State, Step, Then, has_kept
from supervisor.state.state import life_record, read_life

times = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**40)
PLAIN = Service("a", exec="/a")
KEEPING = Service("a", exec="/a", kill_mode="process", handover_signal=10)
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
    set_up=st.booleans(),
    kept=st.booleans(),
    failures=counts,
    restarts=counts,
    starts=counts,
)


@given(lives, st.sampled_from([PLAIN, KEEPING]))
def test_it_comes_back_as_it_was(life: Life, service: Service) -> None:
    again = read_life(json.loads(json.dumps(life_record(life, service))), service)
    assert again == life
    # equal is not enough: a text that is equal to a member would match nothing in the machine
    assert [type(each) for each in (again.state, again.step, again.then, again.cause)] == [State, Step, Then, Cause]


def test_one_that_never_started_has_nothing_to_tell() -> None:
    for service in (PLAIN, KEEPING):
        assert life_record(Life(), service) == {}
        assert read_life({}, service) == Life()


@pytest.mark.parametrize(
    ("record", "may_keep"),
    [
        ({"state": "backoff", "starts": 3}, True),
        ({"state": "failed", "starts": 3, "step": "ready"}, True),
        ({"state": "stopping", "starts": 1}, True),
        ({"state": "waiting"}, False),
        ({"state": "stopped", "starts": 3}, False),
        ({"state": "stopping", "starts": 2, "step": "told"}, False),
        ({"state": "backoff", "starts": 3, "kept": False}, False),
    ],
)
def test_earlier_versions_did_not_say_what_may_be_kept(record: dict[str, object], may_keep: bool) -> None:
    """A program that was started may have left things that only another process can end."""
    assert has_kept(read_life(record, KEEPING)) is may_keep
    assert not has_kept(read_life(record, PLAIN))


@pytest.mark.parametrize("record", [{"state": "confused"}, {"step": "?"}, {"then": None}, {"mood": "good"}])
def test_what_another_version_knows_is_an_error(record: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        read_life(record, PLAIN)
