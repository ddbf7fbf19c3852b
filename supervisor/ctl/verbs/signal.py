"""`signal`: send a signal to the main process of services."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.arguments import take_names, take_quiet
from supervisor.ctl.client import Client
from supervisor.ctl.errors import UsageError
from supervisor.ctl.output import print_results
from supervisor.ctl.signal_number import is_signal, signal_number


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("signal", metavar="SIG", help="TERM, SIGTERM, 15, RTMIN+1, ...")
    take_names(parser)
    take_quiet(parser)


def run(client: Client, args: Namespace) -> int:
    results = client.call("Signal", names=args.names, signal=_number(args))["results"]
    return print_results(results, args.json, args.quiet)


def _number(args: Namespace) -> int:
    """The number of the signal.  Raises UsageError, with a hint where a name was given in the signal's place."""
    *others, last = args.names
    if not is_signal(args.signal) and is_signal(last):
        names = " ".join([args.signal, *others])
        raise UsageError(f"no such signal: {args.signal!r}; the signal comes first: `spawnctl signal {last} {names}`")
    return signal_number(args.signal)
