"""`check`: check the definition files of the running supervisor."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import print_json
from supervisor.printable import count, printable


def arguments(parser: ArgumentParser) -> None:
    pass


def run(client: Client, args: Namespace) -> int:
    reply = client.call("Check")
    if args.json:
        print_json(reply)
    elif reply["problems"]:
        print("\n".join(map(printable, reply["problems"])))
    else:
        notices = reply.get("notices", [])
        for text in notices:
            print(f"notice: {printable(text)}")
        also = f", {count(len(notices), 'notice')}" if notices else ""
        print(f"OK: {count(reply['services'], 'service')}{also}")
    return ExitCode.FAILED if reply["problems"] else ExitCode.DONE
