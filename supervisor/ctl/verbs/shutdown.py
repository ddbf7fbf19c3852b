"""`shutdown`: have the supervisor stop everything and end."""

from __future__ import annotations

import os
import select
from argparse import ArgumentParser, Namespace

from supervisor.ctl import exit_code
from supervisor.ctl.client import Client
from supervisor.ctl.output import print_json

LAST_STEPS = 10_000  # milliseconds from the end of its control socket to that of its process


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="do not wait until it has ended")


def run(client: Client, args: Namespace) -> int:
    process = open_process(client.server_pid())
    try:
        client.call("Shutdown")
        if not args.no_wait:
            client.wait_closed()
            wait_ended(process)
    finally:
        if process is not None:
            os.close(process)
    if args.json:
        print_json({"ended": not args.no_wait})
    return exit_code.DONE


def open_process(pid: int) -> int | None:
    """A pidfd of the supervisor, which lives as long as its socket; None where it cannot be seen from here."""
    try:
        return os.pidfd_open(pid) if pid > 0 else None
    except OSError:
        return None


def wait_ended(process: int | None) -> None:
    """Wait until its process is gone, too: whoever starts the next one then does not find its run-time folder taken."""
    if process is not None:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(LAST_STEPS)
