"""`apply`: change to the definition files as they are now, exactly as `plan` shows it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from supervisor.ctl import exit_code
from supervisor.ctl.arguments import take_no_wait, take_quiet, take_reload
from supervisor.ctl.client import Client
from supervisor.ctl.output import print_json
from supervisor.ctl.planned import print_problems, setting_lines, title
from supervisor.ctl.terminal import Terminal, standard_output
from supervisor.ctl.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--expect", metavar="DIGEST", help="change nothing if plan --json gives another digest by now")
    take_reload(parser)
    take_no_wait(parser)
    take_quiet(parser)


def run(client: Client, args: Namespace) -> int:
    reply = client.call("Apply", expect=args.expect, reload=args.reload, no_wait=args.no_wait)
    if args.json:
        print_json(reply)
    if reply["problems"]:
        print_problems(reply["problems"], "nothing was changed", quiet=args.json)
        return exit_code.FAILED
    say(reply, quiet=args.json or args.quiet)
    return exit_code.DONE if all(row["ok"] for row in reply["services"]) else exit_code.FAILED


def say(reply: dict[str, Any], quiet: bool) -> None:
    """What was done for each service with what came of it, failures on stderr."""
    terminal = standard_output()
    for row in reply["services"]:
        if not row["ok"]:
            print(f"{title(row, Terminal())}: {outcome(row)}", file=sys.stderr)
        elif not quiet:
            print(f"{title(row, terminal)}: {outcome(row)}")
    if not quiet:
        for line in (*setting_lines(reply["settings"]), *(f"notice: {printable(text)}" for text in reply["notices"])):
            print(line)
        if not reply["services"] and not reply["settings"]:
            print("Nothing to do")


def outcome(row: dict[str, Any]) -> str:
    return f"{row['state']}: {printable(row['message'])}" if row["message"] else str(row["state"])
