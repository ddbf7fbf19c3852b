"""The name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable


def hint(name: object, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` where one of the known names is near, else nothing."""
    if not isinstance(name, str) or len(name) > 100:
        return ""
    from difflib import get_close_matches  # only an error needs it

    spellings = {item.lower(): item for item in known}
    matches = get_close_matches(name.lower(), spellings, n=1, cutoff=0.6)
    return f", did you mean {spellings[matches[0]]!r}?" if matches else ""
