"""`why`: what it is that a service is not running for."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from supervisor.ctl import exit_code, journal
from supervisor.ctl.client import Client
from supervisor.ctl.errors import CallFailed
from supervisor.ctl.output import print_json
from supervisor.ctl.quantity import NONE, duration
from supervisor.ctl.terminal import Terminal, standard_output
from supervisor.ctl.text import printable, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LINES = 5
INDENT = "  "


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a service")


def run(client: Client, args: Namespace) -> int:
    reply = client.call("Why", name=args.name)
    if reply["journal"]:
        try:
            reply["lines"] = list(journal.lines(reply["root"], LINES))
        except CallFailed as error:  # the answer is there all the same
            print(f"spawnctl: {error}", file=sys.stderr)
    if args.json:
        print_json(reply)
    else:
        print("\n".join(explain(reply, standard_output())))
    return exit_code.DONE


def explain(reply: dict[str, Any], terminal: Terminal) -> list[str]:
    """The answer, the way to it where there is one, what to do, and what the root of it said last."""
    lines = [printable(reply["answer"])]
    if len(reply["chain"]) > 1:
        lines += ["", *chain(reply["chain"], terminal)]
    if reply["hint"]:
        lines += ["", f"To do: {reply['hint']}"]
    if reply["lines"]:
        lines += ["", f"The last lines of {reply['root']}:"]
        lines += [INDENT + printable(line.expandtabs()) for line in reply["lines"]]
    return lines


def chain(links: list[dict[str, Any]], terminal: Terminal) -> list[str]:
    """Each service with its state and for how long, and what it is that it waits for."""
    cells = [(link["name"], link["state"] or NONE, duration(link["state_s"])) for link in links]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for link, (name, state, time) in zip(links, cells, strict=True):
        shown = terminal.state(state, state.ljust(widths[1]))
        text = printable(link["text"] or "it is not defined")
        lines.append(f"{INDENT}{name.ljust(widths[0])}  {shown}  {time.rjust(widths[2])}  {text}")
    return lines
