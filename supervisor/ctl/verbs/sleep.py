"""`sleep`: end the processes of services; the next client of one of their sockets starts them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.parsers import take_order
from supervisor.ctl.waiting import GOING_UP, order_and_print


def arguments(parser: ArgumentParser) -> None:
    take_order(parser)


def run(client: Client, args: Namespace) -> int:
    return order_and_print(client, args, "Sleep", GOING_UP)
