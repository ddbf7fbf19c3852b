"""`sessions`: the sessions of services that have a process for each connection, and the addresses that traps deny."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode, UsageError
from supervisor.ctl.output import cpu_time, duration, print_json, render, size, standard_output
from supervisor.ctl.parsers import ADDRESS, NAMES
from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TITLES = ("NAME", "PID", "FOR", "MEMORY", "CPU", "PEER")
ALIGNS = "<>>>><"
NOTHING = "No sessions"


DENIED_TITLES = ("ADDRESS", "DENIED FOR")
NOBODY = "No address is denied"


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=NAMES)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--denied", action="store_true", help="show the addresses that traps deny to all services")
    either.add_argument("--forgive", metavar=ADDRESS, action="append", help="let a denied address in again, or all")


def run(client: Client, args: Namespace) -> int:
    if args.names and (args.denied or args.forgive):
        raise UsageError("addresses are denied to all services: --denied and --forgive go without names")
    if args.forgive:
        return forgive(client, args)
    if args.denied:
        return show_denied(client, args)
    rows = client.call("Sessions", names=args.names)["sessions"]
    if args.json:
        print_json(rows)
    elif not rows:
        print(NOTHING)
    else:
        print("\n".join(render(TITLES, ALIGNS, [cells(row) for row in rows], standard_output().width)))
    return ExitCode.DONE


def show_denied(client: Client, args: Namespace) -> int:
    rows = client.call("Denied")["denied"]
    if args.json:
        print_json(rows)
    elif not rows:
        print(NOBODY)
    else:
        table = [[row["address"], "until boot" if row["left_s"] is None else duration(row["left_s"])] for row in rows]
        print("\n".join(render(DENIED_TITLES, "<>", table, standard_output().width)))
    return ExitCode.DONE


def forgive(client: Client, args: Namespace) -> int:
    results = client.call("Forgive", addresses=args.forgive)["results"]
    if args.json:
        print_json(results)
    elif not results:
        print(NOBODY)
    for row in results:
        line = printable(f"{row['address']} {row['message']}")
        if not row["ok"]:
            print(line, file=sys.stderr)
        elif not args.json:
            print(line)
    return ExitCode.DONE if all(row["ok"] for row in results) else ExitCode.FAILED


def cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        str(row["pid"]),
        duration(row["age_s"]),
        size(row["memory_bytes"]),
        cpu_time(row["cpu_s"]),
        row["peer"],
    ]
