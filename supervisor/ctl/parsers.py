"""The parsers of the command line, one up to the verb and one for the verb, and arguments that several verbs take."""

from __future__ import annotations

import argparse
from importlib import import_module

from supervisor import __version__
from supervisor.ctl.errors import UsageError
from supervisor.ctl.verbs import VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import _ActionsContainer
    from collections.abc import Sequence
    from typing import Any

VERB = "VERB"  # the name of an argument that is a verb
SESSION = "PID|PEER"  # that of a session
ADDRESS = "ADDRESS"  # that of the value of an option, an address that traps deny
DEFAULT = "list"
NAMES = "a service, a quoted pattern of names, or all"
NEAR = 2  # verbs that are suggested for a wrong one
ALIKE = 0.7  # their minimal similarity

_CHANGED = "`spawnctl plan` shows what changed definition files would do, and `spawnctl apply` does it"
_AT_BOOT = "the definition says whether a service starts with spawnd: `status = \"start\"` or `status = \"stop\"`"
_STATE = "`spawnctl status NAME` shows the state of a service; its exit status is 3 if the service does not run"
_LIST = "`spawnctl list` shows all services"
_LOGS = "`spawnctl logs -f NAME` shows the output of a service"
_RESTART = "`spawnctl restart NAME` restarts a service, `spawnctl reload NAME` sends its reload_signal"

# verbs of systemctl, supervisorctl, sv and docker
OTHER_VERBS = {
    **dict.fromkeys(("daemon-reload", "reread", "update", "add", "remove", "link", "edit", "load"), _CHANGED),
    **dict.fromkeys(("enable", "disable", "mask", "unmask", "preset", "reenable", "is-enabled"), _AT_BOOT),
    **dict.fromkeys(("is-active", "is-failed", "is-running", "pid", "inspect"), _STATE),
    **dict.fromkeys(("ls", "ps", "list-units", "list-unit-files", "list-sockets", "avail", "units", "services"), _LIST),
    **dict.fromkeys(("tail", "maintail", "journal", "journalctl", "output"), _LOGS),
    **dict.fromkeys(
        ("try-restart", "condrestart", "reload-or-restart", "try-reload-or-restart", "force-reload"), _RESTART
    ),
    **dict.fromkeys(("hup", "send-signal"), "`spawnctl signal TERM NAME` sends a signal"),
    "cat": "`spawnctl show NAME` shows the definition of a service",
    "list-dependencies": "`spawnctl graph` shows what needs what",
    "reset-failed": "`spawnctl reset NAME` forgets the failures of a service",
    "daemon-reexec": "`spawnctl reexec` re-executes the supervisor as the installed version",
    "up": "`spawnctl start NAME` starts a service",
    "down": "`spawnctl stop NAME` stops a service",
    "once": "a program that runs once has `task = true` in its definition; `spawnctl start NAME` runs it",
    "events": "`spawnctl monitor` shows every change of a state",
    **dict.fromkeys(("halt", "poweroff", "quit", "exit"), "`spawnctl shutdown` stops all services and ends spawnd"),
}


def general_parser() -> argparse.ArgumentParser:
    """Return the parser up to the verb: `verb`, and `rest` for the arguments of the verb."""
    longest = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{longest}}  {what}" for name, what in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="spawnctl",
        usage="spawnctl [--socket PATH] [--json] [VERB ...]",
        description="Control spawnd and its services.",
        epilog=f"verbs:\n{verbs}\n\n`spawnctl help VERB` shows the arguments of a verb; `spawnctl` lists services.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    take_general(parser)
    version = f"spawnctl {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version of spawnctl")
    verb = parser.add_argument("verb", metavar=VERB, default=DEFAULT, help=f"one of the verbs below ({DEFAULT})")
    rest = parser.add_argument("rest", nargs=argparse.REMAINDER, default=[], help=argparse.SUPPRESS)
    verb.required = rest.required = False  # like nargs="?", which would be finished before the first option
    return parser


def verb_parser(name: str, rest: Sequence[str] = ()) -> tuple[Any, argparse.ArgumentParser]:
    """Return the module of a verb, and the parser for its arguments `rest`. Raises UsageError."""
    if name not in VERBS:
        raise no_such_verb(name, rest)
    verb = import_module(f"supervisor.ctl.verbs.{name}")
    parser = argparse.ArgumentParser(prog=f"spawnctl {name}", description=sentence(VERBS[name]), allow_abbrev=False)
    take_general(parser, default=argparse.SUPPRESS)
    verb.arguments(parser)
    return verb, parser


def no_such_verb(name: str, rest: Sequence[str] = ()) -> UsageError:
    """Return the error for an unknown verb, with the most probable meaning of the words."""
    from supervisor.definitions.problems import nearest  # needed for errors only

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
    """Add the options that may come before or after the verb."""
    parser.add_argument("--socket", type=_path, metavar="PATH", default=default, help="the supervisor's control socket")
    parser.add_argument("--json", action="store_true", default=default or False, help="print JSON")


def _path(text: str) -> str:
    """Refuse an empty path: a script's unset variable must not mean the system's supervisor."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def take_names(parser: argparse.ArgumentParser) -> None:
    """Add an argument for one name or more."""
    parser.add_argument("names", nargs="+", metavar="NAME", help=NAMES)


def take_name(parser: argparse.ArgumentParser, what: str = "a service") -> None:
    """Add an argument for one service."""
    parser.add_argument("name", metavar="NAME", type=_exact, help=what)


def _exact(text: str) -> str:
    if text == "all" or not set("*?[").isdisjoint(text):
        raise argparse.ArgumentTypeError(f"it takes the name of one service, not {text!r}")
    return text


def take_order(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an order: names, how to wait, and `--quiet`."""
    take_names(parser)
    take_wait(parser)
    take_quiet(parser)


def take_wait(parser: argparse.ArgumentParser, until: str = "it is done") -> None:
    """Add the options that say whether to wait, and how long."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--no-wait", action="store_true", help=f"do not wait until {until}")
    take_timeout(group)


def take_timeout(parser: _ActionsContainer) -> None:
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, help="stop waiting after this time; the operation continues"
    )


def seconds(text: str) -> float:
    """Convert an argument to seconds. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"not a number of seconds up to a day: {text!r}")
    return value


def take_reload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reload", action="store_true", help="also reload services that have a reload_signal, as HUP does"
    )


def take_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="print failures only")
