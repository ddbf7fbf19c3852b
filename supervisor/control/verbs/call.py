"""Call: pass a call on to a service, over its control socket."""

from __future__ import annotations

import re

from supervisor.control.core import Core
from supervisor.control.errors import (
    BadReply,
    ConnectionLost,
    ControlError,
    Failed,
    InvalidParameter,
    Malformed,
    NoControl,
    NotRunning,
    ServiceError,
    TimedOut,
)
from supervisor.control.orders import find
from supervisor.definitions.service import Service
from supervisor.lifecycle.life import AT_REST, State
from supervisor.log.logger import log
from supervisor.varlink import channel
from supervisor.varlink.channel import Channel, ChannelError
from supervisor.varlink.interface import SERVICE
from supervisor.varlink.messages import Call, Parameters, Reply
from supervisor.varlink.pending_call import PendingCall

GET_INFO = f"{SERVICE}.GetInfo"
INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9.-]{0,254}\Z")
# keys in the memo, which survives an exec of spawnd
SENT = "sent"  # the service may have received the call
DEADLINE = "deadline"  # time of the loop's clock

SECONDS = 10.0
SHORTEST, LONGEST = 0.001, 86400.0


class Relay:
    """Answers `pending` with the reply of the service `name` to `call`. Owns the connection; ends with the call.

    `seconds` is the time limit. Raises ControlError.
    """

    def __init__(self, pending: PendingCall, core: Core, name: str, path: str, call: Call, seconds: float) -> None:
        if SENT in pending.memo:  # a call from before the exec, whose connection is gone
            raise ConnectionLost(name)
        if not pending.has_room_for_channel:
            raise Failed("too many connections to services hang while they are closed: descriptors were left in them")
        self._pending = pending
        self._core = core
        self._name = name
        self._call = call
        self._seconds = seconds
        deadline = pending.memo.setdefault(DEADLINE, pending.loop.clock() + seconds)
        assert isinstance(deadline, float)
        self._channel = Channel(pending.loop, path, deadline, self._failed, pending.in_turn, pending.discard_channel)
        pending.on_end(self._channel.close)
        if call.more and not call.oneway:
            pending.stream(self._channel.go_on)
        if "." in call.method:
            self._pass_on(call)
        else:
            self._channel.call(Call(GET_INFO, {}), self._informed)

    def _informed(self, reply: Reply) -> None:
        """Make the call to the service's first own interface."""
        if reply.error:
            self._pending.fail(ServiceError(self._name, reply.error, reply.parameters))
            return
        interfaces = reply.parameters.get("interfaces")
        listed = [name for name in interfaces if isinstance(name, str)] if isinstance(interfaces, list) else []
        own = next((name for name in listed if name != SERVICE), None)
        if own is None or not INTERFACE.match(own):
            self._pending.fail(BadReply(self._name, "GetInfo lists no interface of its own"))
            return
        call = self._call
        self._pass_on(Call(f"{own}.{call.method}", call.parameters, call.more, call.oneway))

    def _pass_on(self, call: Call) -> None:
        try:
            self._channel.call(call, self._replied, lambda: self._pending.memo.update({SENT: True}))
        except Malformed:
            self._pending.fail(InvalidParameter("parameters"))

    def _replied(self, reply: Reply) -> None:
        pending = self._pending
        try:
            if reply.error:
                pending.fail(ServiceError(self._name, reply.error, reply.parameters))
            elif not reply.continues:
                pending.reply({"reply": reply.parameters})
            else:
                pending.reply_more({"reply": reply.parameters})
                if not pending.has_room:
                    self._channel.pause()
        except Malformed as error:
            pending.fail(BadReply(self._name, str(error.parameters["message"])))

    def _failed(self, error: ChannelError) -> None:
        self._pending.fail(self._explain(error))

    def _explain(self, error: ChannelError) -> ControlError:
        unit = self._core.manager.units.get(self._name)
        state = State.STOPPED if unit is None else unit.life.state
        match error:
            case channel.TimedOut():
                return TimedOut(self._name, self._seconds)
            case channel.BadReply():
                return BadReply(self._name, str(error))
            case channel.ConnectionLost() if state not in AT_REST:
                return ConnectionLost(self._name)
            case channel.NotListening() if unit is not None and unit.lacks_control_socket:
                cause = f"it was removed; `spawnctl restart {self._name}` makes it again"
                return Failed(f"cannot connect to the control socket of {self._name}: {cause}")
            case channel.NotListening() | channel.ConnectionLost():
                return NotRunning(self._name, state.value)
            case _:
                return Failed(f"cannot connect to the control socket of {self._name}: {error}")


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    name, method = parameters.string("name"), parameters.string("method")
    arguments = parameters.table("parameters")
    seconds = parameters.number("timeout", SHORTEST, LONGEST, SECONDS)
    parameters.end()
    path = control_path(find(name, core.manager.units).service)
    if not path:
        raise NoControl(name)
    if not INTERFACE.match(method):  # the characters that are safe in a log and valid in a method's name
        raise InvalidParameter("method")
    if pending.resumed:
        raise Failed("spawnd executed itself anew meanwhile; it is unknown whether the service has answered")
    log.info("call of %s of %s: asked for by %s", method, name, pending.client.describe())
    call = Call(method, arguments, pending.call.more, pending.call.oneway)
    Relay(pending, core, name, path, call, seconds)


def control_path(service: Service) -> str:
    """Return the control socket of a service, '' without one: spawnd adds it as the last descriptor."""
    return service.fd[-1].path if service.control and service.fd else ""
