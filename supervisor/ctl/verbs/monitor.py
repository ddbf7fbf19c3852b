"""`monitor`: the states of services, and each change."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from datetime import datetime

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import Terminal, cut, print_json, standard_output, width
from supervisor.ctl.parsers import NAMES
from supervisor.printable import count, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATE_WIDTH = len("reloading -> stopping")  # the longest text
LONGEST_STATE = len("reloading")
WIDE = 80  # columns from which on all is shown


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=NAMES)
    parser.add_argument("--changes-only", action="store_true", help="leave out the present states at the beginning")


def run(client: Client, args: Namespace) -> int:
    terminal = standard_output()
    widest = 0
    for reply in client.stream("Monitor", names=args.names, changes_only=args.changes_only):
        changes = reply["changes"]
        widest = max([widest, *(len(change["name"]) for change in changes)])
        for change in changes:
            if args.json:
                print_json(change)
            else:
                print(line(change, widest, terminal))
        sys.stdout.flush()
    return ExitCode.DONE


def line(change: dict[str, Any], name_width: int, terminal: Terminal) -> str:
    """Return time of day, name, state, process and reason, without repetitions.

    A narrow terminal shows only the new state and whole seconds; text that still does not fit is cut.
    """
    columns = terminal.width or WIDE
    at = datetime.fromisoformat(change["at"]).astimezone()
    time = at.strftime("%H:%M:%S.%f")[:-3] if columns >= WIDE else at.strftime("%H:%M:%S")
    old, state = change["old"], change["state"] or "removed"
    moved = state if old in (None, state) or columns < WIDE else f"{old} -> {state}"
    state_width = STATE_WIDTH if columns >= WIDE else LONGEST_STATE
    name = cut(printable(change["name"]), columns // 3) if terminal.width else printable(change["name"])
    name = name.ljust(min(name_width, columns // 3) if terminal.width else name_width)
    shown = terminal.state(state, printable(moved).ljust(state_width))
    notes = [] if change["reason"] == state else [change["reason"]]
    if change["pid"] is not None:
        notes.append(f"pid {change['pid']}")
    if change["skipped"]:
        notes.append(f"{count(change['skipped'], 'change')} before this one not read in time")
    text = printable(", ".join(notes))
    if terminal.width:
        text = cut(text, terminal.width - len(time) - width(name) - state_width - 6)
    return f"{time}  {name}  {shown}  {text}".rstrip()
