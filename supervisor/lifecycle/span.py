"""A span of time in words."""

from __future__ import annotations

THREE_FIGURES = 999.5  # what is shorter has at most three figures before the point


def span(seconds: float) -> str:
    """`0.205 s`, `3.77 s`, `90 s`, `3604 s`: three figures, and all those of whole seconds."""
    return f"{seconds:.3g} s" if seconds < THREE_FIGURES else f"{seconds:.0f} s"
