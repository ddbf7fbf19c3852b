"""`call`: call a method of a service over its control socket."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode, SpawnctlError
from supervisor.ctl.output import print_json
from supervisor.ctl.parsers import seconds, take_name
from supervisor.json_text import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SECONDS = 10.0


def arguments(parser: ArgumentParser) -> None:
    take_name(parser, "a service with control = true")
    parser.add_argument(
        "method", metavar="METHOD", help="name of the method; without a dot, in the service's own interface"
    )
    parser.add_argument(
        "parameters", metavar="JSON", nargs="?", type=json_object, default={}, help="its parameters, an object ({})"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=SECONDS,
        help=f"time limit for the reply, with --more for the first one ({SECONDS:g})",
    )
    parser.add_argument("--more", action="store_true", help="accept several replies, and print each on a line")


def json_object(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        text.encode()
        value = json.loads(text, parse_constant=refuse)
    except UnicodeEncodeError as error:
        raise ArgumentTypeError("not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArgumentTypeError(f"not an object: {text[:60]}")
    return value


def run(client: Client, args: Namespace) -> int:
    call = {"name": args.name, "method": args.method, "parameters": args.parameters, "timeout": args.timeout}
    try:
        if args.more:
            for reply in client.stream("Call", **call):
                print_json(reply["reply"])
                sys.stdout.flush()
        else:
            show(client.call("Call", **call)["reply"], args.json)
    except SpawnctlError as error:
        if args.json and error.reply:
            print_json(error.reply)
        raise
    return ExitCode.DONE


def show(reply: dict[str, Any], as_json: bool) -> None:
    """Print the reply as JSON, indented for people, with letters in clear and control characters escaped."""
    if as_json:
        print_json(reply)
        return
    text = json.dumps(reply, indent=2, ensure_ascii=False)
    print("".join(char if char.isprintable() or char == "\n" else dumps(char)[1:-1] for char in text))
