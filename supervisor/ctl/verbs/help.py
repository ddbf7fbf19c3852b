"""`help`: the arguments of a verb, or the list of verbs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import print_json
from supervisor.ctl.parsers import VERB, general_parser, verb_parser


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("about", nargs="?", metavar=VERB, help="the verb to explain")


def run(client: Client, args: Namespace) -> int:
    parser = general_parser() if args.about is None else verb_parser(args.about)[1]
    if args.json:
        print_json({"verb": args.about, "help": parser.format_help()})
    else:
        parser.print_help()
    return ExitCode.DONE
