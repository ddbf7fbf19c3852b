"""`fds`: the descriptor table of a service."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import print_json, render, standard_output
from supervisor.ctl.parsers import take_name

TITLES = ("FD", "NAME", "WHAT", "STORED")


def arguments(parser: ArgumentParser) -> None:
    take_name(parser)


def run(client: Client, args: Namespace) -> int:
    rows = client.call("Fds", name=args.name)["descriptors"]
    if args.json:
        print_json(rows)
    else:
        cells = [[str(row["number"]), row["name"], row["what"], "yes" if row["stored"] else ""] for row in rows]
        print("\n".join(render(TITLES, "><<<", cells, standard_output().width)))
    return ExitCode.DONE
