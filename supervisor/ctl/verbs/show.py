"""`show`: the current definition of a service, in the notation of the definition files."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import print_json
from supervisor.ctl.parsers import take_name
from supervisor.definitions.notation.lua import is_name
from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMN = 48  # start of the places, unless a value is longer


def arguments(parser: ArgumentParser) -> None:
    take_name(parser)
    parser.add_argument("-a", "--all", action="store_true", help="include keys with default values")


def run(client: Client, args: Namespace) -> int:
    reply = client.call("Show", name=args.name)
    if not args.all and not reply["internal"]:
        reply["settings"] = [setting for setting in reply["settings"] if setting["line"] is not None]
    if args.json:
        print_json(reply)
    else:
        print("\n".join(define(reply)))
    return ExitCode.DONE


def define(reply: dict[str, Any]) -> list[str]:
    """Return the definition, with the place of each key as a comment."""
    name = reply["name"]
    where = "built in" if reply["internal"] else f"{reply['file']}:{reply['line']}"
    if reply["functions"]:
        lines = [commented(f'module("{name}", package.seeall)', where)]
        for setting in reply["settings"]:
            lines += entry(setting, indent="", end="")
        lines += [commented(function["value"], place(function)) for function in reply["functions"]]
    else:
        lines = [commented(f"{name} = {{" if is_name(name) else f'_G["{name}"] = {{', where)]
        for setting in reply["settings"]:
            lines += entry(setting)
        lines.append("}")
    if reply["pending"] is not None:
        lines += ["", "-- a changed definition waits until the present process is gone:"]
        lines += [f"-- {line}" for setting in reply["pending"] for line in entry(setting)]
    return lines


def entry(setting: dict[str, Any], indent: str = "  ", end: str = ",") -> list[str]:
    """Return `key = value,` with its place; a long value takes several lines."""
    value = setting["value"].replace("\n", f"\n{indent}")
    first, *rest = f"{indent}{setting['key']} = {value}{end}".split("\n")
    return [commented(first, place(setting)), *map(printable, rest)]


def place(setting: dict[str, Any]) -> str:
    return "default" if setting["line"] is None else f"{setting['file']}:{setting['line']}"


def commented(text: str, where: str) -> str:
    return f"{printable(text):{COLUMN}} -- {printable(where)}"
