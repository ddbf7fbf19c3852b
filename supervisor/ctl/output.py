"""Output of the verbs: JSON, results, colours, durations and sizes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from supervisor.ctl.errors import ExitCode
from supervisor.json_text import dumps
from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_SERVICES = "Nothing to do: no services are defined"
NONE = "-"  # an unknown quantity
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


def print_json(value: object) -> None:
    """Print JSON on one line, or a list with a line for each item."""
    if isinstance(value, list) and value:
        print("[\n" + ",\n".join(dumps(item) for item in value) + "\n]")
    else:
        print(dumps(value))


def print_results(
    results: Sequence[Mapping[str, Any]], as_json: bool, quiet: bool = False, nothing: str = NO_SERVICES
) -> int:
    """Print what came of an order for each service, failures on stderr, or `nothing`; return the exit code."""
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
    """The width of standard output, None where no line is cut, and whether it shows colours."""

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
    """Return the properties of standard output, with `$COLUMNS`, `$NO_COLOR` and `$TERM` obeyed."""
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
