"""The command line of `spawn-enter`."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass

from workers.accessory.client import ADDRESS
from workers.accessory.id_map import Extent

_EXTENT = re.compile(r"\s*(\d{1,10})[\s:]+(\d{1,10})[\s:]+(\d{1,10})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of a user namespace, each with at least one line."""

    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]

    def payload(self) -> bytes:
        return b"\0".join(b"".join(extent.encode() for extent in map_) for map_ in (self.uids, self.gids))


@dataclass(frozen=True, slots=True)
class Arguments:
    name: str
    ipc: bool
    pid: bool
    maps: Maps | None
    address: str
    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"


def parse_arguments(arguments: Sequence[str] | None = None) -> Arguments:
    parser = ArgumentParser(
        prog="spawn-enter",
        description="Run a command in the namespaces that the accessory keeps under NAME, and hold them until it ends.",
        epilog="Exit status: that of the command; 125 if the namespaces cannot be entered, 126 if the command cannot"
        " be executed, 127 if it is not found.",
    )
    parser.add_argument("--ipc", action="store_true", help="enter the IPC namespace")
    parser.add_argument("--pid", action="store_true", help="enter the PID namespace, with a /proc of its own")
    parser.add_argument(
        "--user",
        metavar="MAP",
        type=parse_maps,
        help="enter the user namespace with this map: INSIDE:OUTSIDE:COUNT, several separated by commas, UIDS/GIDS if"
        " they differ; the command runs as the first INSIDE id",
    )
    parser.add_argument("--address", default=ADDRESS, help="socket of the accessory (%(default)s)")
    parser.add_argument(
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        type=_parse_variable,
        help="set an environment variable of the command; without VALUE, pass on the caller's",
    )
    parser.add_argument("--cwd", metavar="DIR", default="/", help="working directory of the command (%(default)s)")
    parser.add_argument("name", metavar="NAME", help="name of the namespaces")
    parser.add_argument(
        "command",
        metavar="COMMAND",
        nargs="*",
        default=[],  # without it argparse says that COMMAND is required
        help="command and arguments, after --; a shell by default",
    )
    words = list(sys.argv[1:] if arguments is None else arguments)
    # argparse would take every -- out of the command
    end = words.index("--") if "--" in words else len(words)
    found = parser.parse_args(words[:end])
    if not (found.ipc or found.pid or found.user):
        parser.error("nothing to enter: at least one of --ipc, --pid, --user MAP")
    if not found.name.isascii() or not found.name or min(found.name) < " ":
        parser.error("NAME has to be ASCII without control characters")
    command = (*found.command, *words[end + 1 :]) or (os.environ.get("SHELL") or "/bin/sh",)
    env, cwd = tuple(found.env), os.path.abspath(found.cwd)
    return Arguments(found.name, found.ipc, found.pid, found.user, found.address, command, env, cwd)


def _parse_variable(text: str) -> str:
    name = text.partition("=")[0]
    if not name:
        raise ArgumentTypeError(f"{text!r} is not NAME or NAME=VALUE")
    return text


def parse_maps(text: str) -> Maps:
    uids, slash, gids = text.partition("/")
    return Maps(_parse_map(uids), _parse_map(gids if slash else uids))


def _parse_map(text: str) -> tuple[Extent, ...]:
    extents = []
    for line in text.split(","):
        found = _EXTENT.fullmatch(line)
        if found is None:
            raise ArgumentTypeError(f"{line!r} is not INSIDE:OUTSIDE:COUNT")
        extents.append(Extent(*map(int, found.groups())))
    return tuple(extents)
