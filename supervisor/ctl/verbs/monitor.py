"""`monitor`: the states of services, and every change of them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from datetime import datetime

from supervisor.ctl import exit_code
from supervisor.ctl.arguments import NAMES
from supervisor.ctl.client import Client
from supervisor.ctl.output import print_json
from supervisor.ctl.terminal import Terminal, standard_output
from supervisor.ctl.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATE_WIDTH = len("reloading -> stopping")  # none is longer


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=NAMES)
    parser.add_argument("--changes-only", action="store_true", help="do not begin with the present states")


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
    return exit_code.DONE


def line(change: dict[str, Any], name_width: int, terminal: Terminal) -> str:
    """Time of the day, name, state, process and reason; what stays the same is told once."""
    time = datetime.fromisoformat(change["at"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    old, state = change["old"], change["state"] or "removed"
    moved = state if old in (None, state) else f"{old} -> {state}"
    shown = terminal.state(state, moved.ljust(STATE_WIDTH))
    notes = [] if change["reason"] == state else [change["reason"]]
    if change["pid"] is not None:
        notes.append(f"pid {change['pid']}")
    if change["skipped"]:
        notes.append(f"{change['skipped']} changes before this one not read in time")
    return f"{time}  {change['name']:{name_width}}  {shown}  {printable(', '.join(notes))}".rstrip()
