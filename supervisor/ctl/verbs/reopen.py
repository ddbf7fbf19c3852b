"""`reopen`: create new log files after a rotation."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.parsers import take_order
from supervisor.ctl.waiting import order_and_print

NOTHING = "Nothing to reopen: none of these services writes to files by descriptors of its table"


def arguments(parser: ArgumentParser) -> None:
    take_order(parser)


def run(client: Client, args: Namespace) -> int:
    return order_and_print(client, args, "Reopen", nothing=NOTHING)
