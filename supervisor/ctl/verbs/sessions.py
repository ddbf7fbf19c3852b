"""`sessions`: the sessions of services that have a process for each connection."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import cpu_time, duration, print_json, render, size, standard_output
from supervisor.ctl.parsers import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TITLES = ("NAME", "PID", "FOR", "MEMORY", "CPU", "PEER")
ALIGNS = "<>>>><"
NOTHING = "No sessions"


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=NAMES)


def run(client: Client, args: Namespace) -> int:
    rows = client.call("Sessions", names=args.names)["sessions"]
    if args.json:
        print_json(rows)
    elif not rows:
        print(NOTHING)
    else:
        print("\n".join(render(TITLES, ALIGNS, [cells(row) for row in rows], standard_output().width)))
    return ExitCode.DONE


def cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        str(row["pid"]),
        duration(row["age_s"]),
        size(row["memory_bytes"]),
        cpu_time(row["cpu_s"]),
        row["peer"],
    ]
