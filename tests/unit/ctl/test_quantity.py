from __future__ import annotations

import pytest

from supervisor.ctl.output import cpu_time, duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0s"),
        (59.99, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (86400, "1d00h"),
        (1e9, "11574d01h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(None, "-"), (0.0, "0.00s"), (59.5, "59.50s"), (61.0, "1m01s")])
def test_cpu_times(seconds: float | None, text: str) -> None:
    assert cpu_time(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (10239, "10K"),
        (1536, "1.5K"),
        (23 << 20, "23M"),
        (1023 << 20, "1023M"),
        ((1 << 30) - 1, "1.0G"),
        (5 << 40, "5.0T"),
        (5000 << 50, "5000P"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert size(count) == text
