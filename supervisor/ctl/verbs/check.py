"""`check`: check the definition files that the supervisor was started with."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl import exit_code
from supervisor.ctl.client import Client
from supervisor.ctl.output import print_json
from supervisor.ctl.text import printable


def arguments(parser: ArgumentParser) -> None:
    pass


def run(client: Client, args: Namespace) -> int:
    reply = client.call("Check")
    if args.json:
        print_json(reply)
    elif reply["problems"]:
        print("\n".join(map(printable, reply["problems"])))
    else:
        print(f"OK: {reply['services']} services")
    return exit_code.FAILED if reply["problems"] else exit_code.DONE
