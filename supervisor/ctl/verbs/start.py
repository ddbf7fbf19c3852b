"""`start`: have services up, with what they depend on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.arguments import take_order
from supervisor.ctl.client import Client
from supervisor.ctl.output import print_results


def arguments(parser: ArgumentParser) -> None:
    take_order(parser)


def run(client: Client, args: Namespace) -> int:
    results = client.call("Start", names=args.names, no_wait=args.no_wait)["results"]
    return print_results(results, args.json, args.quiet)
