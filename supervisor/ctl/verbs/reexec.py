"""`reexec`: re-execute the supervisor as the installed version."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import print_json
from supervisor.ctl.parsers import take_timeout
from supervisor.ctl.waiting import order
from supervisor.printable import printable


def arguments(parser: ArgumentParser) -> None:
    take_timeout(parser)


def run(client: Client, args: Namespace) -> int:
    reply = order(client, args, "Reexec")
    if args.json:
        print_json(reply)
    else:
        print(printable(f"spawnd {reply['version']} runs, pid {reply['pid']}"))
    return ExitCode.DONE
