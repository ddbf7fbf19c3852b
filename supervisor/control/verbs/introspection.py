"""GetVersion, and `org.varlink.service` of spawnd: facts about spawnd, and the descriptions of its interfaces."""

from __future__ import annotations

import os

from supervisor import __version__, control
from supervisor.control.core import Core
from supervisor.control.errors import InterfaceNotFound
from supervisor.varlink.interface import SERVICE, info, read_description, service_description
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall

OWN = "io.spawnd"
INTERFACES = (OWN, SERVICE)


def get_version(pending: PendingCall, core: Core) -> None:
    Parameters(pending.call.parameters).end()
    pending.reply({"version": __version__, "pid": os.getpid()})


def get_info(pending: PendingCall, core: Core) -> None:
    Parameters(pending.call.parameters).end()
    pending.reply(info("spawnd", list(INTERFACES)))


def get_interface_description(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    interface = parameters.string("interface")
    parameters.end()
    if interface not in INTERFACES:
        raise InterfaceNotFound(interface)
    pending.reply({"description": description(interface)})


def description(interface: str) -> str:
    """Return the description of an interface."""
    if interface == SERVICE:
        return service_description()
    return read_description(os.path.dirname(control.__file__), interface)
