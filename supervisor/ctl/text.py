"""Text as a terminal shows it: how wide it is, and without what would command the terminal."""

from __future__ import annotations

ELLIPSIS = "…"


def printable(text: str) -> str:
    """The text with control characters escaped: services, of whatever user, say things about themselves."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def width(text: str) -> int:
    """Columns that it takes up."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut(text: str, columns: int) -> str:
    """At most so many columns of it, ending in an ellipsis where there is more."""
    if width(text) <= columns:
        return text
    kept, room = "", columns - 1
    for char in text:
        room -= _width(char)
        if room < 0:
            break
        kept += char
    return kept + ELLIPSIS if columns > 0 else ""


def _width(char: str) -> int:
    from unicodedata import combining, east_asian_width  # not needed for most output

    if combining(char):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1
