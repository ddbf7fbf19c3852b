"""Varlink messages (https://varlink.org/Method-Call) and errors: JSON objects, each terminated by a NUL byte.

This module only converts values and bytes, and uses no sockets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from supervisor.errors import SpawnError
from supervisor.json_text import dumps

MAX_REQUEST = 1 << 20  # bytes; ten times the longest sensible call, a list of all names
MAX_REPLY = 1 << 20  # bytes, of an untrusted reply


class ControlError(SpawnError):
    """The error `name` that answers a call; `ends`: the connection is closed after it."""

    ends = False

    def __init__(self, error: str, /, **parameters: object) -> None:
        detail = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
        super().__init__(f"{error}({detail})")
        self.name = error
        self.parameters = parameters


# the caller's errors, which the protocol itself names


class MethodNotFound(ControlError):
    def __init__(self, method: str) -> None:
        super().__init__("org.varlink.service.MethodNotFound", method=method)


class InterfaceNotFound(ControlError):
    def __init__(self, interface: str) -> None:
        super().__init__("org.varlink.service.InterfaceNotFound", interface=interface)


class InvalidParameter(ControlError):
    def __init__(self, parameter: str) -> None:
        super().__init__("org.varlink.service.InvalidParameter", parameter=parameter)


class ExpectedMore(ControlError):
    """The method has many replies, but the caller accepts one only."""

    def __init__(self) -> None:
        super().__init__("org.varlink.service.ExpectedMore")


class PermissionDenied(ControlError):
    ends = True

    def __init__(self) -> None:
        super().__init__("org.varlink.service.PermissionDenied")


# errors of both spawnd and its workers


class Malformed(ControlError):
    """The message is not a valid call."""

    ends = True

    def __init__(self, message: str) -> None:
        super().__init__("io.spawnd.Malformed", message=message)


class Failed(ControlError):
    def __init__(self, message: str) -> None:
        super().__init__("io.spawnd.Failed", message=message)


class Call(NamedTuple):
    """A method call. `more`: the caller accepts several replies; `oneway`: it accepts none."""

    method: str
    parameters: dict[str, object]
    more: bool = False
    oneway: bool = False
    upgrade: bool = False


class Reply(NamedTuple):
    """A reply, or an error if `error` has its name. `continues`: another reply follows."""

    parameters: dict[str, object]
    error: str = ""
    continues: bool = False


class Framer:
    """Splits input into messages of at most `limit` bytes; `what` names them in errors."""

    def __init__(self, limit: int = MAX_REQUEST, what: str = "call") -> None:
        self._limit = limit
        self._what = what
        self._buffer = bytearray()
        self._searched = 0  # length already searched, so that each byte is searched once

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> bytes | None:
        """Return the next message without its NUL, or None if it is incomplete. Raises Malformed if it is too long."""
        end = self._buffer.find(0, self._searched)
        if max(end, len(self._buffer) if end < 0 else 0) > self._limit:
            raise Malformed(f"a {self._what} is longer than {self._limit} bytes")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return message

    def rest(self) -> bytes:
        """Return the received bytes that were not taken."""
        return bytes(self._buffer)

    @property
    def size(self) -> int:
        """Number of bytes kept."""
        return len(self._buffer)

    @property
    def empty(self) -> bool:
        return not self._buffer


def parse_call(message: bytes) -> Call:
    """Return the call in a message. Raises Malformed. Unknown keys are ignored, as the protocol requires."""
    value = _object(message)
    method = value.get("method")
    if not isinstance(method, str):
        raise Malformed("'method' is not a string")
    return Call(method, _parameters(value), _flag(value, "more"), _flag(value, "oneway"), _flag(value, "upgrade"))


def parse_reply(message: bytes) -> Reply:
    """Return the reply or error in a message. Raises Malformed."""
    value = _object(message)
    error = value.get("error", "")
    if not isinstance(error, str) or ("error" in value and not error):
        raise Malformed("'error' is not a name")
    return Reply(_parameters(value), error, _flag(value, "continues"))


def _object(message: bytes) -> dict[str, object]:
    try:
        value = _JSON.decode(message.decode())
    except ValueError as error:
        raise Malformed(f"not JSON: {error}") from error
    except RecursionError as error:
        raise Malformed("nested too deeply") from error
    if not isinstance(value, dict):
        raise Malformed("not an object")
    return value


def _parameters(value: Mapping[str, object]) -> dict[str, object]:
    parameters = value.get("parameters")
    if not isinstance(parameters, dict | None):
        raise Malformed("'parameters' is not an object")
    return parameters or {}


def _flag(value: Mapping[str, object], key: str) -> bool:
    flag = value.get(key)
    if not isinstance(flag, bool | None):
        raise Malformed(f"{key!r} is not a boolean")
    return bool(flag)


def _finite(text: str) -> float:
    """Refuse numbers that JSON cannot represent."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number out of range: {text[:40]}")
    return value


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


_JSON = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)


def encode_call(call: Call) -> bytes:
    """Return the bytes of a call, with only the flags that are set. Raises Malformed if it is nested too deeply."""
    flags = {flag: True for flag in ("more", "oneway", "upgrade") if getattr(call, flag)}
    return _encode({"method": call.method, "parameters": call.parameters, **flags}, json.dumps)


def encode_reply(parameters: Mapping[str, object], continues: bool = False) -> bytes:
    """Return the bytes of a reply; `continues`: it is not the last reply to its call."""
    return _encode({"parameters": parameters, "continues": True} if continues else {"parameters": parameters})


def encode_error(error: ControlError) -> bytes:
    return _encode({"error": error.name, "parameters": error.parameters})


def _encode(message: Mapping[str, object], write: Callable[..., str] = dumps) -> bytes:
    try:
        return write(message, separators=(",", ":")).encode() + b"\0"
    except RecursionError as error:  # wrapping adds a level, which may be too many for a value that could just be read
        raise Malformed("nested too deeply") from error


class Parameters:
    """Parameters of a call; each method raises InvalidParameter if the value has another type or is out of range.

    A null counts as absent. `end` has to be called after the others.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = {key: value for key, value in values.items() if value is not None}

    def string(self, key: str, default: str | None = None) -> str:
        """Return a parameter that may be absent if it has a default."""
        value = self._values.pop(key, default)
        if not isinstance(value, str):
            raise InvalidParameter(key)
        return value

    def strings(self, key: str, default: list[str] | None = None) -> list[str]:
        """Return a list of strings, which may be absent if it has a default."""
        value = self._values.pop(key, default)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidParameter(key)
        return value

    def boolean(self, key: str) -> bool:
        """Return a flag, False if absent."""
        value = self._values.pop(key, False)
        if not isinstance(value, bool):
            raise InvalidParameter(key)
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self._values.pop(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidParameter(key)
        return value

    def number(self, key: str, low: float, high: float, default: float) -> float:
        """Return a number, integral or not."""
        value = self._values.pop(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidParameter(key)
        return float(value)

    def table(self, key: str) -> dict[str, object]:
        """Return an object with any content, empty if absent."""
        value = self._values.pop(key, {})
        if not isinstance(value, dict):
            raise InvalidParameter(key)
        return value

    def end(self) -> None:
        """Raise InvalidParameter for unknown parameters, so that misspellings are reported."""
        for key in self._values:
            raise InvalidParameter(key)
