"""Output of the verbs: JSON, results, colours, durations and sizes, and tables that fit the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from supervisor.ctl.errors import ExitCode
from supervisor.json_text import dumps
from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Paint = Callable[[int, int, str], str]  # row, column and the padded cell: the cell in colour

NO_SERVICES = "Nothing to do: no services are defined"
NONE = "-"  # an unknown quantity
COLOURS = {
    "running": "32",
    "reloading": "32",
    "asleep": "32",
    "done": "32",
    "starting": "33",
    "waiting": "33",
    "stopping": "33",
    "backoff": "33",
    "failed": "31",
}

ELLIPSIS = "…"
NARROWEST = 20  # columns: the minimal width of wrapped text, however narrow the terminal is
GAP = "  "  # between the columns of a table
RIGHT = ">"
LEFT = "<"


def print_json(value: object) -> None:
    """Print JSON on one line, or a list with a line for each item."""
    if isinstance(value, list) and value:
        print("[\n" + ",\n".join(dumps(item) for item in value) + "\n]")
    else:
        print(dumps(value))


def print_results(
    results: Sequence[Mapping[str, Any]], as_json: bool, quiet: bool = False, nothing: str = NO_SERVICES
) -> int:
    """Print the results of an order for each service, failures on stderr; `nothing` for none. Return the exit code."""
    if as_json:
        print_json(list(results))
    elif not results and not quiet:
        print(nothing)
    for row in results:
        message = f": {row['message']}" if row["message"] else ""
        line = printable(f"{row['name']}: {row['state']}{message}")
        if not row["ok"]:
            print(line, file=sys.stderr)
        elif not as_json and not quiet:
            print(line)
    return ExitCode.DONE if all(row["ok"] for row in results) else ExitCode.FAILED


# standard output


class Terminal:
    """The width of standard output, None if lines are not cut, and whether it shows colours."""

    def __init__(self, width: int | None = None, colours: bool = False) -> None:
        self.width = width
        self.colours = colours

    def paint(self, colour: str, text: str) -> str:
        """Return the text in a colour of ECMA-48 (`31`), if colours are wanted."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colours and colour else text

    def state(self, state: str, text: str) -> str:
        """Return the text in the colour of a state."""
        return self.paint(COLOURS.get(state, ""), text)


def standard_output() -> Terminal:
    """Return the properties of standard output, according to `$COLUMNS`, `$NO_COLOR` and `$TERM` as well."""
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


# quantities


def duration(seconds: float | None) -> str:
    """Return a duration for people, in its two largest units: `12s`, `3m05s`, `2h07m`, `5d03h`."""
    if seconds is None:
        return NONE
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def cpu_time(seconds: float | None) -> str:
    """Return CPU time as a duration, below a minute with hundredths of a second."""
    if seconds is None or seconds >= 60:
        return duration(seconds)
    return f"{seconds:.2f}s"


def size(count: int | None) -> str:
    """Return a number of bytes in units of 1024, with two figures or more: `512B`, `1.5K`, `23M`."""
    if count is None:
        return NONE
    if count < 1024:
        return f"{count}B"
    value = float(count)
    for unit in "KMGTP":
        value /= 1024
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if value < 1023.5:
            break
    return f"{value:.0f}{unit}"


def width(text: str) -> int:
    """Return the number of columns of a text."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut(text: str, columns: int) -> str:
    """Return a text cut to `columns`, with an ellipsis at the end of a cut text."""
    if width(text) <= columns:
        return text
    kept, room = "", columns - 1
    for char in text:
        room -= _width(char)
        if room < 0:
            break
        kept += char
    return kept + ELLIPSIS if columns > 0 else ""


def wrap(text: str, columns: int | None, before: int = 0) -> list[str]:
    """Return the text in lines of at most `columns` (None: one line), broken at blanks if possible.

    The caller fills the first `before` columns of each line.
    """
    room = None if columns is None else max(columns - before, NARROWEST)
    if room is None or width(text) <= room:
        return [text]
    lines, rest = [], text
    while width(rest) > room:
        line = _begin(rest, room)
        blank = line.rfind(" ") if not rest[len(line) :].startswith(" ") else len(line)
        line = rest[:blank].rstrip() or line if blank > 0 else line
        lines.append(line)
        rest = rest[len(line) :].lstrip()
    return [*lines, rest] if rest else lines


def _begin(text: str, columns: int) -> str:
    """Return the beginning of a text that fits, at least one character."""
    for index, char in enumerate(text):
        columns -= _width(char)
        if columns < 0:
            return text[: max(index, 1)]
    return text


def _width(char: str) -> int:
    from unicodedata import combining, east_asian_width  # not needed for most output

    if combining(char):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


# tables


def render(
    titles: Sequence[str],
    aligns: str,
    rows: Sequence[Sequence[str]],
    columns: int | None = None,
    paint: Paint | None = None,
) -> list[str]:
    """Return the lines of a table, titles first; each column is as wide as its widest cell.

    `aligns` has a `<` or `>` for each column. Lines are cut to `columns` (None: never). Only cells of `rows`
    are painted.
    """
    cells = [list(titles), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for number, row in enumerate(cells):
        padded = [_pad(cell, wide, align) for cell, wide, align in zip(row, widths, aligns, strict=True)]
        shown = padded if columns is None else _fit(padded, columns)
        shown[-1] = shown[-1].rstrip()
        if paint is not None and number > 0:
            shown = [paint(number - 1, column, cell) for column, cell in enumerate(shown)]
        lines.append(GAP.join(shown).rstrip())
    return lines


def _pad(cell: str, columns: int, align: str) -> str:
    space = " " * (columns - width(cell))
    return space + cell if align == RIGHT else cell + space


def _fit(cells: list[str], columns: int) -> list[str]:
    """Return the cells that fit, at least one, with the last one cut."""
    shown: list[str] = []
    room = columns
    for cell in cells:
        if shown:
            room -= len(GAP)
        if room <= 0:
            break
        if width(cell.rstrip()) > room:
            shown.append(cut(cell.rstrip(), room))
            break
        shown.append(cell)
        room -= width(cell)
    return shown
