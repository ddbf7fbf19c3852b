"""The arguments that many verbs take."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

NAMES = "a service, a pattern of names in quotes, or all"


def take_names(parser: ArgumentParser) -> None:
    """At least one name."""
    parser.add_argument("names", nargs="+", metavar="NAME", help=NAMES)


def take_order(parser: ArgumentParser) -> None:
    """Names, and how to wait for what is ordered for them."""
    take_names(parser)
    take_no_wait(parser)
    take_quiet(parser)


def take_no_wait(parser: ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="do not wait until it is done")


def take_reload(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--reload", action="store_true", help="with a reload of the services that have a reload_signal, as HUP does it"
    )


def take_quiet(parser: ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="print failures only")
