"""`org.varlink.service` for spawnd: what it is, and the text of its interfaces."""

from __future__ import annotations

import os

from supervisor.control.core import Core
from supervisor.control.errors import InterfaceNotFound
from supervisor.varlink import introspection
from supervisor.varlink.exchange import Exchange
from supervisor.varlink.parameters import Parameters

OWN = "io.spawnd"
INTERFACES = (OWN, introspection.SERVICE)


def get_info(exchange: Exchange, core: Core) -> None:
    Parameters(exchange.call.parameters).end()
    exchange.reply(introspection.info("spawnd", list(INTERFACES)))


def get_interface_description(exchange: Exchange, core: Core) -> None:
    parameters = Parameters(exchange.call.parameters)
    interface = parameters.string("interface")
    parameters.end()
    if interface not in INTERFACES:
        raise InterfaceNotFound(interface)
    exchange.reply({"description": description(interface)})


def description(interface: str) -> str:
    """The definition of one of the interfaces."""
    if interface == introspection.SERVICE:
        return introspection.service_description()
    return introspection.read_description(os.path.dirname(__file__), interface)
