"""`stop`: stop services."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.parsers import take_order
from supervisor.ctl.waiting import GOING_DOWN, order_and_print

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def arguments(parser: ArgumentParser) -> None:
    take_order(parser)
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--cascade", action="store_true", help="stop their running dependants first")
    others.add_argument("--alone", action="store_true", help="leave their dependants running")
    parser.add_argument("--keep-sessions", action="store_true", help="leave their sessions running")


def run(client: Client, args: Namespace) -> int:
    more: dict[str, Any] = {key: True for key in ("cascade", "alone", "keep_sessions") if getattr(args, key)}
    return order_and_print(client, args, "Stop", GOING_DOWN, **more)
