"""`kill`: send a signal to one session of a service."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import UsageError
from supervisor.ctl.output import print_results
from supervisor.ctl.parsers import SESSION, take_name, take_quiet
from supervisor.ctl.verbs.signal import is_signal, signal_number


def arguments(parser: ArgumentParser) -> None:
    take_name(parser)
    # required, but with a message of its own
    parser.add_argument("session", metavar=SESSION, nargs="?", help="a session, as `spawnctl sessions` shows it")
    parser.add_argument(
        "signal", metavar="SIG", nargs="?", help="TERM, SIGTERM, 15, ...; the stop_signal of the service without it"
    )
    take_quiet(parser)


def run(client: Client, args: Namespace) -> int:
    if args.session is None:
        raise UsageError(
            f"no session: `spawnctl sessions {args.name}` shows them; "
            f"`spawnctl signal TERM {args.name}` sends a signal to the main process"
        )
    if is_signal(args.session) and not args.session.isdecimal():
        raise UsageError(f"the signal comes last: `spawnctl kill {args.name} {SESSION} {args.session}`")
    number = None if args.signal is None else signal_number(args.signal)
    results = client.call("Kill", name=args.name, session=args.session, signal=number)["results"]
    return print_results(results, args.json, args.quiet)
