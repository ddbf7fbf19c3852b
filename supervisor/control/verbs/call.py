"""Call: have a service answer a call itself, over its control socket."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.errors import Failed, InvalidParameter, NoControl
from supervisor.control.orders import find
from supervisor.control.relay import INTERFACE, Relay
from supervisor.definitions.service import Service
from supervisor.log.logger import log
from supervisor.varlink.messages import Call
from supervisor.varlink.parameters import Parameters
from supervisor.varlink.pending_call import PendingCall

SECONDS = 10.0
SHORTEST, LONGEST = 0.001, 86400.0


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    name, method = parameters.string("name"), parameters.string("method")
    arguments = parameters.table("parameters")
    seconds = parameters.number("timeout", SHORTEST, LONGEST, SECONDS)
    parameters.end()
    path = control_path(find(name, core.manager.units).service)
    if not path:
        raise NoControl(name)
    if not INTERFACE.match(method):  # what may stand in a log, and in a method's name
        raise InvalidParameter("method")
    if pending.resumed:
        raise Failed("spawnd executed itself anew meanwhile: whether the service has answered is not known")
    client = pending.client
    log.info("call of %s of %s: asked for by uid %d, pid %d", method, name, client.uid, client.pid)
    call = Call(method, arguments, pending.call.more, pending.call.oneway)
    Relay(pending, core, name, path, call, seconds)


def control_path(service: Service) -> str:
    """Where the service listens for calls, empty if it does not: the last of its descriptors, which spawnd adds."""
    return service.fd[-1].path if service.control and service.fd else ""
