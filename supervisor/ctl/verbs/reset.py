"""`reset`: forget the failures of services."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.output import print_results
from supervisor.ctl.parsers import take_names, take_quiet


def arguments(parser: ArgumentParser) -> None:
    take_names(parser)
    take_quiet(parser)


def run(client: Client, args: Namespace) -> int:
    results = client.call("Reset", names=args.names)["results"]
    return print_results(results, args.json, args.quiet)
