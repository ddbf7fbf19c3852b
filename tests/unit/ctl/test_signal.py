from __future__ import annotations

import signal

import pytest

from supervisor.ctl.errors import UsageError
from supervisor.ctl.verbs.signal import signal_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("term", 15),
        ("15", 15),
        ("64", 64),
        ("HUP", 1),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+1", signal.SIGRTMIN + 1),
        ("rtmax-2", signal.SIGRTMAX - 2),
        ("RTMIN+30", 64),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-1", "NOPE", "SIG", "RTMIN-1", "RTMIN+31", "RTMAX+1", "TERM+1", "DFL", "²", "9" * 50]
)
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(UsageError, match="no such signal"):
        signal_number(text)
