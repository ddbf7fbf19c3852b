"""The arguments that many verbs take."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import _ActionsContainer

NAMES = "a service, a quoted pattern of names, or all"


def take_names(parser: ArgumentParser) -> None:
    """At least one name."""
    parser.add_argument("names", nargs="+", metavar="NAME", help=NAMES)


def take_name(parser: ArgumentParser, what: str = "a service") -> None:
    """One service."""
    parser.add_argument("name", metavar="NAME", type=_exact, help=what)


def _exact(text: str) -> str:
    if text == "all" or not set("*?[").isdisjoint(text):
        raise ArgumentTypeError(f"it takes the name of one service, not {text!r}")
    return text


def take_order(parser: ArgumentParser) -> None:
    """Names, and how to wait for what is ordered for them."""
    take_names(parser)
    take_wait(parser)
    take_quiet(parser)


def take_wait(parser: ArgumentParser, until: str = "it is done") -> None:
    """Whether to wait, and how long."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--no-wait", action="store_true", help=f"do not wait until {until}")
    take_timeout(group)


def take_timeout(parser: _ActionsContainer) -> None:
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, help="stop waiting after this time; the operation continues"
    )


def seconds(text: str) -> float:
    """The type of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise ArgumentTypeError(f"not a number of seconds up to a day: {text!r}")
    return value


def take_reload(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--reload", action="store_true", help="also reload services that have a reload_signal, as HUP does"
    )


def take_quiet(parser: ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="print failures only")
