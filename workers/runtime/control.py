"""What a worker answers on its control socket: calls in, replies out, no socket in between.

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

`ControlSocket` serves it on the project's own loop, `workers.runtime.async_control` on asyncio; whoever
has another loop cuts what comes in with `Framer` and gives each message to `Control.answer_message`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from supervisor.log.logger import log
from supervisor.varlink.errors import (
    ControlError,
    Failed,
    InterfaceNotFound,
    InvalidParameter,
    Malformed,
    MethodNotFound,
)
from supervisor.varlink.interface import Interface, Mismatch, parse
from supervisor.varlink.introspection import SERVICE, info, service_description
from supervisor.varlink.messages import MAX_REPLY, Call, encode_error, encode_reply, parse_call

Method = Callable[[dict[str, Any]], Any]  # Mapping[str, object] or, for AsyncControl, what can be awaited for one


class Control:
    """The methods of a worker, by their names in its interface `description`.

    Each is given its parameters as the description has them, those that are left out as None,
    and returns those of the reply at once, or raises ControlError.  Anything else that it
    raises, and a reply that is not as described, is logged and answered as Failed.
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
        """The message that answers one (empty: none is wanted), and whether the connection ends with it."""
        try:
            call = parse_call(message)
        except Malformed as error:
            return encode_error(error), error.ends
        reply, ends = self.answer(call)
        return b"" if call.oneway else reply, ends

    def answer(self, call: Call) -> tuple[bytes, bool]:
        """The message that answers a call, reply or error, and whether the connection ends with it."""
        try:
            return self._reply(call, self._begin(call))
        except Exception as error:
            return self._error(call, error)

    def _begin(self, call: Call) -> Any:
        """What the method returns.  Raises ControlError and whatever the method raises."""
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
    """The parameters of a call, every one that the description has.  Raises InvalidParameter."""
    taken = interface.methods[method][0]
    try:
        interface.check(values, taken)
    except Mismatch as error:
        raise InvalidParameter(error.field) from error
    return {name: values.get(name) for name in taken.fields}
