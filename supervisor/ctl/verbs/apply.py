"""`apply`: apply the current definition files, exactly as `plan` shows."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import Terminal, print_json, standard_output
from supervisor.ctl.parsers import take_quiet, take_reload, take_wait
from supervisor.ctl.verbs.plan import print_problems, setting_lines, title
from supervisor.ctl.waiting import order
from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--expect", metavar="DIGEST", help="change nothing unless plan --json still gives this digest")
    take_reload(parser)
    take_wait(parser)
    take_quiet(parser)


def run(client: Client, args: Namespace) -> int:
    reply = order(client, args, "Apply", expect=args.expect, reload=args.reload, no_wait=args.no_wait)
    if args.json:
        print_json(reply)
    if reply["problems"]:
        print_problems(reply["problems"], "nothing was changed", quiet=args.json)
        return ExitCode.FAILED
    say(reply, quiet=args.json or args.quiet)
    return ExitCode.DONE if all(row["ok"] for row in reply["services"]) else ExitCode.FAILED


def say(reply: dict[str, Any], quiet: bool) -> None:
    """Print each service's change and its result, failures on stderr."""
    terminal = standard_output()
    for row in reply["services"]:
        if not row["ok"]:
            print(f"{title(row, Terminal())}: {outcome(row)}", file=sys.stderr)
        elif not quiet:
            print(f"{title(row, terminal)}: {outcome(row)}")
    if not quiet:
        notices = (f"notice: {printable(text)}" for text in reply["notices"])
        for line in (*setting_lines(reply["settings"], terminal.width), *notices):
            print(line)
        if not reply["services"] and not reply["settings"]:
            print("Nothing to do")


def outcome(row: dict[str, Any]) -> str:
    return printable(f"{row['state']}: {row['message']}") if row["message"] else printable(row["state"])
