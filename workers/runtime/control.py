"""A worker's control socket, and the answers to calls on it.

    INTERFACE = '''
    interface io.spawnd.example
    method Greet(name: string) -> (text: string)
    error TooRude (name: string)
    '''

    def greet(parameters):
        if parameters["name"] == "you there":
            raise ControlError("io.spawnd.example.TooRude", name=parameters["name"])
        return {"text": f"Good morning, {parameters['name']}"}

    control = Control("example", INTERFACE, {"Greet": greet})

`ControlSocket` serves it on the project's own loop, `workers.runtime.async_control` on asyncio. A worker with
another loop splits its input with `Framer` and passes each message to `Control.answer_message`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from supervisor.linux.peers import peer_credentials
from supervisor.log.logger import log
from supervisor.loop.loop import Loop, Timer
from supervisor.notify.safe_close import ClosingQueue, PidfdReaper, safe_close
from supervisor.varlink.connection import Acceptor, Callbacks, Connection, Turns
from supervisor.varlink.interface import SERVICE, Interface, Mismatch, info, parse, service_description
from supervisor.varlink.messages import (
    MAX_REPLY,
    Call,
    ControlError,
    Failed,
    InterfaceNotFound,
    InvalidParameter,
    Malformed,
    MethodNotFound,
    encode_error,
    encode_reply,
    parse_call,
)
from supervisor.varlink.pending_call import PendingCall
from workers.runtime.start import CONTROL as CONTROL

MAX_CONNECTIONS = 64
LIFETIME = 60.0  # seconds; spawnd makes a connection for each call
Method = Callable[[dict[str, Any]], Any]  # Mapping[str, object] or, for AsyncControl, an awaitable of one


class Control:
    """The methods of a worker, by their names in its interface `description`.

    Each gets its parameters as described, None for omitted ones, and returns those of the reply, or raises
    ControlError. Any other error, and a reply that does not match the description, is logged and answered as Failed.
    """

    def __init__(self, product: str, description: str, methods: Mapping[str, Method]) -> None:
        own = parse(description)
        service = service_description()
        if set(methods) != set(own.methods):
            wrong = ", ".join(sorted(set(methods) ^ set(own.methods)))
            raise ValueError(f"cannot serve {own.name}: described or written, and not both: {wrong}")
        self._product = product
        self._interfaces = {own.name: own, SERVICE: parse(service)}
        self._descriptions = {own.name: description.strip() + "\n", SERVICE: service}
        self._methods = {f"{own.name}.{name}": method for name, method in methods.items()}
        self._methods[f"{SERVICE}.GetInfo"] = self._get_info
        self._methods[f"{SERVICE}.GetInterfaceDescription"] = self._get_interface_description

    def answer_message(self, message: bytes) -> tuple[bytes, bool]:
        """Return the answer to a message, b'' for a oneway call, and whether the connection ends with it."""
        try:
            call = parse_call(message)
        except Malformed as error:
            return encode_error(error), error.ends
        reply, ends = self.answer(call)
        return b"" if call.oneway else reply, ends

    def answer(self, call: Call) -> tuple[bytes, bool]:
        """Return the answer to a call, reply or error, and whether the connection ends with it."""
        try:
            return self._reply(call, self._begin(call))
        except Exception as error:
            return self._error(call, error)

    def _begin(self, call: Call) -> Any:
        """Call the method and return its result. Raises ControlError and the exceptions of the method."""
        if call.upgrade:
            raise InvalidParameter("upgrade")
        name, _, method = call.method.rpartition(".")
        interface = self._interfaces.get(name)
        if interface is None:
            raise InterfaceNotFound(name)
        if method not in interface.methods:
            raise MethodNotFound(call.method)
        return self._methods[call.method](checked(interface, method, call.parameters))

    def _reply(self, call: Call, reply: Mapping[str, object]) -> tuple[bytes, bool]:
        name, _, method = call.method.rpartition(".")
        interface = self._interfaces[name]
        try:
            interface.check(reply, interface.methods[method][1])
        except Mismatch as error:
            raise TypeError(f"the reply is not as described: {error.field}") from error
        message = encode_reply(reply)
        if len(message) > MAX_REPLY + 1:  # with its NUL
            raise Failed(f"the reply is longer than {MAX_REPLY} bytes: ask for less")
        return message, False

    def _error(self, call: Call, error: Exception) -> tuple[bytes, bool]:
        if isinstance(error, ControlError):
            return encode_error(error), error.ends
        log.error("unexpected error in %s", call.method, exc_info=error)
        return encode_error(Failed(f"unexpected error: {error}")), False

    def _get_info(self, _parameters: dict[str, Any]) -> Mapping[str, object]:
        return info(self._product, list(self._interfaces))

    def _get_interface_description(self, parameters: dict[str, Any]) -> Mapping[str, object]:
        description = self._descriptions.get(parameters["interface"])
        if description is None:
            raise InterfaceNotFound(parameters["interface"])
        return {"description": description}


def checked(interface: Interface, method: str, values: Mapping[str, object]) -> dict[str, Any]:
    """Return all parameters in the description, None for omitted ones. Raises InvalidParameter."""
    taken = interface.methods[method][0]
    try:
        interface.check(values, taken)
    except Mismatch as error:
        raise InvalidParameter(error.field) from error
    return {name: values.get(name) for name in taken.fields}


class ControlSocket:
    """A worker's control socket on the project's own loop. Owns the listening socket `fd` and the connections to it.

    Only root and the worker's own user can connect: the socket is spawnd's, in a folder that only they can
    enter. The client is checked again, as a descriptor can be passed on. No peer can block the worker,
    whatever it does and leaves in its connection. Each has `LIFETIME` for its calls, `MAX_CONNECTIONS` are
    served at a time, and further ones wait in the listen backlog.
    """

    def __init__(self, loop: Loop, fd: int, control: Control) -> None:
        self._loop = loop
        self._control = control
        self._connections: dict[Connection, Timer] = {}
        self._discard = partial(safe_close, ClosingQueue(loop, PidfdReaper(loop, loop)))
        self._callbacks = Callbacks(self._serve, self._closed, Turns(loop).add, discard=self._discard)
        self._listener = socket.socket(fileno=fd)
        self._acceptor = Acceptor(loop, self._listener, self._take_in)

    @property
    def is_idle(self) -> bool:
        """Whether there is no connection; a client may be queued."""
        return not self._connections

    def close(self) -> None:
        """End all connections; clients in the listen backlog wait for the successor."""
        for connection in list(self._connections):
            connection.close()
        self._acceptor.stop()
        self._listener.close()

    def _take_in(self, sock: socket.socket) -> None:
        try:
            client = peer_credentials(sock)
        except OSError:
            self._discard(sock)
            return
        if client.uid not in (0, os.geteuid()):
            log.warning("control socket: connection of %s refused", client.describe())
            self._discard(sock)
            return
        connection = Connection(self._loop, sock, client, self._callbacks)
        self._connections[connection] = self._loop.limit_later(LIFETIME, connection.close)
        if len(self._connections) >= MAX_CONNECTIONS:
            self._acceptor.stop()

    def _closed(self, connection: Connection) -> None:
        self._connections.pop(connection).cancel()
        if len(self._connections) < MAX_CONNECTIONS:
            self._acceptor.go_on()

    def _serve(self, pending: PendingCall) -> None:
        pending.finish(*self._control.answer(pending.call))
