"""The parsers of the command line: one up to the verb, one for what the verb takes."""

from __future__ import annotations

import argparse
from importlib import import_module

from supervisor import __version__
from supervisor.ctl.errors import UsageError
from supervisor.ctl.verbs import VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

VERB = "VERB"  # what an argument is called that is a verb
DEFAULT = "list"
NEAR = 2  # verbs that are suggested instead of a wrong one
ALIKE = 0.7  # how alike they have to be


def general_parser() -> argparse.ArgumentParser:
    """For everything: `verb`, and `rest`, which is the verb's."""
    longest = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{longest}}  {what}" for name, what in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="spawnctl",
        usage="spawnctl [--socket PATH] [--json] [VERB ...]",
        description="Controls spawnd and the services under it.",
        epilog=f"verbs:\n{verbs}\n\nspawnctl help VERB tells what a verb takes; spawnctl alone lists services.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    take_general(parser)
    version = f"spawnctl {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version of spawnctl")
    verb = parser.add_argument("verb", metavar=VERB, default=DEFAULT, help=f"what to do ({DEFAULT})")
    rest = parser.add_argument("rest", nargs=argparse.REMAINDER, default=[], help=argparse.SUPPRESS)
    verb.required = rest.required = False  # as with nargs="?", which would be done with before the first option
    return parser


def verb_parser(name: str, rest: Sequence[str] = ()) -> tuple[Any, argparse.ArgumentParser]:
    """The module of a verb, and the parser of the words `rest` that follow it.  Raises UsageError."""
    if name not in VERBS:
        raise no_such_verb(name, rest)
    verb = import_module(f"supervisor.ctl.verbs.{name}")
    parser = argparse.ArgumentParser(prog=f"spawnctl {name}", description=sentence(VERBS[name]), allow_abbrev=False)
    take_general(parser, default=argparse.SUPPRESS)
    verb.arguments(parser)
    return verb, parser


def no_such_verb(name: str, rest: Sequence[str] = ()) -> UsageError:
    """The error for a wrong verb, with the most probable meaning of the words."""
    from supervisor.ctl.other_verbs import OTHER_VERBS  # only an error needs them
    from supervisor.definitions.suggest import nearest

    near = [repr(verb) for verb in nearest(name, VERBS, NEAR, ALIKE)]
    if rest and rest[0] in VERBS:
        meant = f"the verb comes first: `spawnctl {rest[0]} {name}`"
    elif advice := OTHER_VERBS.get(name.lower()):
        meant = advice
    elif near:
        meant = f"did you mean {' or '.join(near)}?"
    else:
        meant = "`spawnctl help` lists the verbs"
    return UsageError(f"no such verb {name!r}; {meant}")


def take_general(parser: argparse.ArgumentParser, default: object = None) -> None:
    """The options that may come before the verb or after it."""
    parser.add_argument("--socket", type=_path, metavar="PATH", default=default, help="the supervisor's control socket")
    parser.add_argument("--json", action="store_true", default=default or False, help="print JSON")


def _path(text: str) -> str:
    """An empty path is an unset variable of a script, and not the system's supervisor."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
