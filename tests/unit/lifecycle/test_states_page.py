"""docs/states.md shows the state machine as it is."""

from __future__ import annotations

from pathlib import Path

from supervisor.lifecycle.life import State
from tests import states

PAGE = Path(__file__).parents[3] / "docs" / "states.md"


def test_the_page_is_what_the_machine_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text[text.index("```mermaid") :] == states.page(), "make it anew: python -m tests.states"


def test_each_state_can_be_reached_and_left() -> None:
    pairs = states.changes().keys()
    assert {new for _, new in pairs} == {old for old, _ in pairs} == set(State)
