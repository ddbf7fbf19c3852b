"""`signal`: send a signal to the main process of services."""

from __future__ import annotations

import re
import signal
from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import UsageError
from supervisor.ctl.output import print_results
from supervisor.ctl.parsers import take_names, take_quiet


def is_signal(text: str) -> bool:
    """Whether `signal_number` accepts `text`."""
    try:
        signal_number(text)
    except UsageError:
        return False
    return True


def signal_number(text: str) -> int:
    """Return the number of `TERM`, `SIGTERM`, `15`, `RTMIN+1`, `RTMAX-2`. Raises UsageError."""
    name = text.upper().removeprefix("SIG")
    if name.isdecimal() and name.isascii():
        number = int(name)
    elif match := re.fullmatch(r"(RTMIN|RTMAX)([+-]\d{1,2})?", name, re.ASCII):
        number = getattr(signal, f"SIG{match[1]}") + int(match[2] or 0)
        if not signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            number = 0
    else:
        number = getattr(signal.Signals, f"SIG{name}", 0)
    if not 1 <= number <= signal.SIGRTMAX:
        raise UsageError(f"no such signal: {text!r}")
    return int(number)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("signal", metavar="SIG", help="TERM, SIGTERM, 15, RTMIN+1, ...")
    take_names(parser)
    take_quiet(parser)


def run(client: Client, args: Namespace) -> int:
    results = client.call("Signal", names=args.names, signal=_number(args))["results"]
    return print_results(results, args.json, args.quiet)


def _number(args: Namespace) -> int:
    """Return the signal's number. Raises UsageError, with a hint if the name comes before the signal."""
    *others, last = args.names
    if not is_signal(args.signal) and is_signal(last):
        names = " ".join([args.signal, *others])
        raise UsageError(f"no such signal: {args.signal!r}; the signal comes first: `spawnctl signal {last} {names}`")
    return signal_number(args.signal)
