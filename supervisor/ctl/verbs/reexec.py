"""`reexec`: have the supervisor become its installed version."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl import exit_code
from supervisor.ctl.client import Client
from supervisor.ctl.output import print_json


def arguments(parser: ArgumentParser) -> None:
    pass


def run(client: Client, args: Namespace) -> int:
    reply = client.call("Reexec")
    if args.json:
        print_json(reply)
    else:
        print(f"spawnd {reply['version']} runs, pid {reply['pid']}")
    return exit_code.DONE
