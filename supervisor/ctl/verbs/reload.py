"""`reload`: ask services to reload."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from supervisor.ctl.client import Client
from supervisor.ctl.parsers import take_order
from supervisor.ctl.waiting import order_and_print

NOTHING = "Nothing to reload: none of these services has a reload_signal or a function reload"


def arguments(parser: ArgumentParser) -> None:
    take_order(parser)


def run(client: Client, args: Namespace) -> int:
    return order_and_print(client, args, "Reload", nothing=NOTHING)
