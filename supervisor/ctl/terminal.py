"""What standard output is: how wide, and whether colours are wanted there."""

from __future__ import annotations

import os
import sys

COLOURS = {
    "running": "32",
    "reloading": "32",
    "done": "32",
    "starting": "33",
    "waiting": "33",
    "stopping": "33",
    "backoff": "33",
    "failed": "31",
}


class Terminal:
    """`width` is None where nothing is to be cut: not a terminal."""

    def __init__(self, width: int | None = None, colours: bool = False) -> None:
        self.width = width
        self.colours = colours

    def paint(self, colour: str, text: str) -> str:
        """The text in a colour of ECMA-48 (`31`), where colours are wanted."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colours and colour else text

    def state(self, state: str, text: str) -> str:
        """The text in the colour of a state."""
        return self.paint(COLOURS.get(state, ""), text)


def standard_output() -> Terminal:
    """`$COLUMNS`, `$NO_COLOR` and `$TERM` count."""
    if not sys.stdout.isatty():
        return Terminal()
    colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Terminal(_columns(), colours)


def _columns() -> int | None:
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None
