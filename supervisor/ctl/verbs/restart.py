"""`restart`: stop and start services."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.parsers import take_order
from supervisor.ctl.waiting import GOING_UP, order_and_print

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def arguments(parser: ArgumentParser) -> None:
    take_order(parser)
    parser.add_argument("--sessions", action="store_true", help="end their sessions, too")


def run(client: Client, args: Namespace) -> int:
    more: dict[str, Any] = {"sessions": True} if args.sessions else {}
    return order_and_print(client, args, "Restart", GOING_UP, **more)
