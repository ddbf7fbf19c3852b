"""`signal`: send a signal to the main process of services."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.arguments import take_names, take_quiet
from supervisor.ctl.client import Client
from supervisor.ctl.output import print_results
from supervisor.ctl.signal_number import signal_number


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("signal", metavar="SIG", help="TERM, SIGTERM, 15, RTMIN+1, ...")
    take_names(parser)
    take_quiet(parser)


def run(client: Client, args: Namespace) -> int:
    results = client.call("Signal", names=args.names, signal=signal_number(args.signal))["results"]
    return print_results(results, args.json, args.quiet)
