"""The parsers of the command line: one up to the verb, one for what the verb takes."""

from __future__ import annotations

import argparse
from importlib import import_module

from supervisor.ctl.verbs import VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def general_parser() -> argparse.ArgumentParser:
    """For everything: `verb`, and `rest`, which is the verb's."""
    longest = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{longest}}  {what}" for name, what in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="spawnctl",
        usage="spawnctl [--socket PATH] [--json] VERB ...",
        description="Controls spawnd and the services under it.",
        epilog=f"verbs:\n{verbs}\n\nspawnctl VERB --help tells what a verb takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    take_general(parser)
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do")
    rest = parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    rest.required = False  # it may be empty, and is not to be asked for where the verb is missing
    return parser


def verb_parser(name: str) -> tuple[Any, argparse.ArgumentParser]:
    """The module of a verb, and the parser of what follows it."""
    verb = import_module(f"supervisor.ctl.verbs.{name}")
    parser = argparse.ArgumentParser(prog=f"spawnctl {name}", description=sentence(VERBS[name]), allow_abbrev=False)
    take_general(parser, default=argparse.SUPPRESS)
    verb.arguments(parser)
    return verb, parser


def take_general(parser: argparse.ArgumentParser, default: object = None) -> None:
    """The options that may come before the verb or after it."""
    parser.add_argument("--socket", metavar="PATH", default=default, help="the supervisor's control socket")
    parser.add_argument("--json", action="store_true", default=default or False, help="print JSON")


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
