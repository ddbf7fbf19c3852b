"""`spawnctl`: the command line. Only the module of the requested verb is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode, SpawnctlError
from supervisor.ctl.parsers import general_parser, verb_parser
from supervisor.places import default_socket
from supervisor.printable import lose_output, printable, write_out

PROGRAM = "spawnctl"
COMPLETE = "--complete"  # the request of a shell for candidates


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute the command line and return the exit code."""
    _open_closed_output()
    try:
        return write_out(PROGRAM, run(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as end:  # argparse has printed an error or a help text
        return write_out(PROGRAM, end.code if isinstance(end.code, int) else ExitCode.USAGE)
    except SpawnctlError as error:
        lines = [printable(line) for line in f"spawnctl: {error}".split("\n")]
        print("\n".join(lines), file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except OSError as error:  # e.g. a full disk; errors of the supervisor are SpawnctlErrors
        return lose_output(PROGRAM, error)


def _open_closed_output() -> None:
    """Open the null device in place of a closed standard output or error."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # open until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # open until the process ends


def run(arguments: Sequence[str]) -> int:
    """Parse the command line in two steps, because the verb's part is in its module. Also raises SystemExit."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    if arguments[:1] == [COMPLETE]:
        from supervisor.ctl.completion import complete  # needed by shells only

        return complete(arguments[1:])
    general = general_parser().parse_args(arguments)
    verb, parser = verb_parser(general.verb, general.rest)
    args = parser.parse_args(general.rest, general)
    client = Client(args.socket or default_socket())
    try:
        code: int = verb.run(client, args)
        return code
    except (SpawnctlError, OSError):
        raise
    except Exception as error:
        if client.replied:  # any program may listen on the socket and send anything
            raise client.malformed(f"{type(error).__name__}: {error}") from error
        raise
    finally:
        client.close()
