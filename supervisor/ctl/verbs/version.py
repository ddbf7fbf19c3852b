"""`version`: the versions of spawnctl and of the running supervisor."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from supervisor import __version__
from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode, SpawnctlError
from supervisor.ctl.output import print_json
from supervisor.printable import printable


def arguments(parser: ArgumentParser) -> None:
    pass


def run(client: Client, args: Namespace) -> int:
    running, code = None, ExitCode.DONE
    try:
        running = client.call("GetVersion")["version"]
    except SpawnctlError as error:
        print(printable(f"spawnctl: {error}"), file=sys.stderr)
        code = error.code
    if args.json:
        print_json({"spawnctl": __version__, "spawnd": running})
    else:
        print(f"spawnctl {__version__}")
        if running is not None:
            print(printable(f"spawnd {running}"))
    return code
