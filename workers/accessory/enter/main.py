"""`spawn-enter [--ipc] [--pid] [--user MAP] [--address ADDRESS] NAME [-- COMMAND …]`."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from workers.accessory.client import Accessory, Namespaces, RequestError
from workers.accessory.enter.arguments import Arguments, parse_arguments
from workers.accessory.enter.joining import JoinError, join_after_fork, join_before_fork
from workers.accessory.enter.waiting import end_like, hold_signals, wait_child
from workers.accessory.errors import ProtocolError

CANNOT_ENTER = 125
CANNOT_RUN = 126
NOT_FOUND = 127


def main() -> int:
    arguments = parse_arguments()
    try:
        namespaces = _ask(arguments)
        join_before_fork(namespaces)
    except (OSError, RequestError, ProtocolError, JoinError) as error:
        return _failed(f"{error.strerror or error}" if isinstance(error, OSError) else str(error), CANNOT_ENTER)
    mask = hold_signals()
    try:
        pid = os.fork()
    except OSError as error:  # the PID namespace has ended meanwhile, or there is no room for a process
        return _failed(f"cannot start a process in the namespaces: {error.strerror}", CANNOT_ENTER)
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _run(arguments, namespaces)
    # the lease is ours alone, and ends with us
    return end_like(wait_child(pid))


def _ask(arguments: Arguments) -> Namespaces:
    with Accessory(arguments.address) as accessory:
        user = arguments.maps.payload() if arguments.maps is not None else None
        return accessory.request(arguments.name, ipc=arguments.ipc, pid=arguments.pid, user=user, lease=True)


def _run(arguments: Arguments, namespaces: Namespaces) -> NoReturn:
    """In the child: become the command."""
    status = CANNOT_ENTER
    try:
        join_after_fork(namespaces, arguments.maps)
        for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
            signal.signal(signum, signal.SIG_DFL)
        os.execvp(arguments.command[0], arguments.command)  # noqa: S606  # no shell is the point
    except JoinError as error:
        _failed(str(error), status)
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        _failed(f"cannot run {arguments.command[0]!r}: {error.strerror}", status)
    finally:
        os._exit(status)


def _failed(message: str, status: int) -> int:
    print(f"spawn-enter: {message}", file=sys.stderr, flush=True)
    return status
