"""`shutdown`: stop all services and end the supervisor."""

from __future__ import annotations

import os
import select
import time
from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode, TimedOut
from supervisor.ctl.output import print_json
from supervisor.ctl.parsers import take_wait
from supervisor.ctl.waiting import order

LAST_STEPS = 10_000  # milliseconds between the end of the supervisor's control socket and of its process


def arguments(parser: ArgumentParser) -> None:
    take_wait(parser, "it has ended")


def run(client: Client, args: Namespace) -> int:
    end = None if args.timeout is None else time.monotonic() + args.timeout
    process = open_process(client.server_pid())
    try:
        order(client, args, "Shutdown")
        if not args.no_wait and not (client.wait_closed(end) and wait_ended(process, end)):
            raise TimedOut("shutdown", args.timeout)
    finally:
        if process is not None:
            os.close(process)
    if args.json:
        print_json({"ended": not args.no_wait})
    return ExitCode.DONE


def open_process(pid: int) -> int | None:
    """Return a pidfd of the supervisor, or None if its process is invisible."""
    try:
        return os.pidfd_open(pid) if pid > 0 else None
    except OSError:
        return None


def wait_ended(process: int | None, end: float | None) -> bool:
    """Wait for the end of the supervisor's process; return False at `end` (monotonic time).

    After its end, the run-time folder is free for the next spawnd.
    """
    if process is None:
        return True
    poll = select.poll()
    poll.register(process, select.POLLIN)
    left = LAST_STEPS if end is None else max(end - time.monotonic(), 0.0) * 1000
    return bool(poll.poll(min(left, LAST_STEPS))) or left >= LAST_STEPS
