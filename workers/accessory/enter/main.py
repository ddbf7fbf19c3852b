"""`spawn-enter [--ipc] [--pid] [--user MAP] [--env NAME[=VALUE]] [--cwd DIR] [--address ADDRESS] NAME [-- COMMAND …]`.

This process stays outside the namespaces, holds the lease and keeps the caller's terminal, if there is one.
The command has its own session. If it gets a pseudo-terminal in place of the caller's terminal, the leader of
its session is a process between the two.
"""

from __future__ import annotations

import os
import signal

from supervisor.linux.credentials import set_dumpable
from supervisor.printable import write_out
from workers.accessory.client import Accessory, Namespaces, RequestError
from workers.accessory.enter.arguments import Arguments, parse_arguments
from workers.accessory.enter.command import CANNOT_ENTER, FIRST_OTHER, JoinError, Start, begin, join_before_fork, say
from workers.accessory.enter.running import Running, end_like, hold_signals
from workers.accessory.enter.terminal import find_terminal
from workers.accessory.protocol import ProtocolError

PROGRAM = "spawn-enter"


def main() -> int:
    _open_standard()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback; it also ends a command like any other signal
    try:
        arguments = parse_arguments()
    except SystemExit as end:  # argparse has printed an error or a help text
        return write_out(PROGRAM, int(end.code or 0))
    name = arguments.command[0]
    program = os.path.abspath(name) if "/" in name else name  # a path is relative to the caller's folder
    set_dumpable(False)  # processes in the namespaces may trace a dumpable process
    try:
        namespaces = _ask(arguments)
        terminal = find_terminal()
        join_before_fork(namespaces)
    except (OSError, RequestError, ProtocolError, JoinError) as error:
        return say(f"{error.strerror or error}" if isinstance(error, OSError) else str(error), CANNOT_ENTER)
    start = Start(arguments, program, namespaces, terminal, hold_signals())
    try:
        child = os.fork()
    except OSError as error:  # the PID namespace has ended meanwhile, or there is no room for a process
        return say(f"cannot start a process in the namespaces: {error.strerror}", CANNOT_ENTER)
    if child == 0:
        begin(start)
    if terminal is not None:
        terminal.close_theirs()
    # only this process has the lease, which ends with it
    return end_like(Running(child, terminal).wait())


def _open_standard() -> None:
    """Open 0 to 2 if necessary; otherwise the next files would get these numbers and the command inherit them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < FIRST_OTHER:
        os.set_inheritable(fd, True)
    os.close(fd)


def _ask(arguments: Arguments) -> Namespaces:
    """Request the namespaces. Raises JoinError, RequestError, ProtocolError."""
    user = arguments.maps.payload() if arguments.maps is not None else None
    try:
        with Accessory(arguments.address) as accessory:
            return accessory.request(arguments.name, ipc=arguments.ipc, pid=arguments.pid, user=user, lease=True)
    except OSError as error:
        cause = "no answer in time" if isinstance(error, BlockingIOError) else error.strerror or error
        raise JoinError(
            f"cannot ask the accessory at {arguments.address!r}: {cause}"
            " (see `spawnctl status accessory`; --address NAME is for another one)"
        ) from error
