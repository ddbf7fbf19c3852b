"""Suggestions for a name that is unknown."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 200  # names that are compared in full: a comparison takes tens of microseconds
LONGEST = 100  # characters of a name that others are compared with
ALIKE = 0.6  # ratio of difflib from which on two names are near


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` where one of the known names is near, else nothing."""
    found = nearest(name, known) if isinstance(name, str) else []
    return f", did you mean {found[0]!r}?" if found else ""


def nearest(name: str, known: Iterable[str], most: int = 1, alike: float = ALIKE) -> list[str]:
    """Return the known names that are near, the nearest first, at most `most` of them; `alike` is 1 for the same name.

    The time is bounded, however many names there are: of many, those that look alike at first sight are compared.
    """
    if not 0 < len(name) <= LONGEST:
        return []
    from difflib import get_close_matches  # only an error needs it

    wanted = name.lower()
    spellings = {item.lower(): item for item in known}
    begun = [item for item in spellings if len(wanted) > 3 and item.startswith(wanted)]
    if len(begun) == 1 and most == 1:
        return [spellings[begun[0]]]
    compared: Iterable[str] = spellings
    if len(spellings) > MOST:
        compared = sorted(spellings, key=lambda item: abs(len(item) - len(wanted)) + (item[:1] != wanted[:1]))[:MOST]
    return [spellings[item] for item in get_close_matches(wanted, compared, n=most, cutoff=alike)]
