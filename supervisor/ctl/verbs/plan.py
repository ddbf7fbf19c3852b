"""`plan`: what a change to the definition files as they are now would do, key by key."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.arguments import take_reload
from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import print_json, standard_output
from supervisor.ctl.planned import key_lines, print_problems, setting_lines, summary, title
from supervisor.ctl.text import wrap
from supervisor.printable import printable


def arguments(parser: ArgumentParser) -> None:
    take_reload(parser)


def run(client: Client, args: Namespace) -> int:
    reply = client.call("Plan", reload=args.reload)
    if args.json:
        print_json(reply)
    if reply["problems"]:
        print_problems(reply["problems"], "the definitions are wrong", quiet=args.json)
        return ExitCode.FAILED
    if not args.json:
        terminal = standard_output()
        lines = [line for row in reply["services"] for line in (title(row, terminal), *key_lines(row, terminal.width))]
        notices = [part for text in reply["notices"] for part in wrap(f"notice: {printable(text)}", terminal.width)]
        print("\n".join([*lines, *setting_lines(reply["settings"], terminal.width), *notices, summary(reply)]))
    return ExitCode.FAILED if reply["services"] or reply["settings"] else ExitCode.DONE
