"""Spans of time in words."""

from __future__ import annotations

import pytest

from supervisor.lifecycle.life import span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.20519, "0.205 s"),
        (3.7704, "3.77 s"),
        (90.0, "90 s"),
        (999.4, "999 s"),
        (999.5, "1000 s"),
        (3604.2, "3604 s"),
        (1e7, "10000000 s"),
    ],
)
def test_never_in_powers_of_ten(seconds: float, text: str) -> None:
    assert span(seconds) == text
