"""The Lua side of calls: the sandbox that a text was checked in, and the libraries that are open to its functions."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from typing import Any

from workers.lua.libraries import FUNCTION, make_libraries
from workers.lua.state import LuaState
from workers.lua.syslog import Syslog


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a call: whether it went well, its text, and the traceback of an error."""

    ok: bool
    text: str = ""
    trace: str = ""


class Caller:
    """Owns a Lua state, good for one text and one call."""

    def __init__(self) -> None:
        self._state = LuaState(_unexpected)
        libraries = make_libraries(FUNCTION)
        for library in libraries:
            self._state.install(library.name, library.functions)
        (self._syslog,) = (library for library in libraries if isinstance(library, Syslog))
        sandbox = self._state.load("sandbox.lua")
        self._lua = self._state.load("functions.lua", sandbox)
        sandbox.seal()

    def evaluate(self, text: str, path: str, seconds: float | None = None) -> Outcome:
        """Run the text, which defines its modules; it has `seconds` of CPU time where that is given."""
        name = os.path.basename(path).removesuffix(".lua")
        return self._do(self._lua.evaluate, *map(_bytes, (text, path, name)), seconds)

    def call(self, module: str, function: str) -> Outcome:
        """Call a function of the text that was evaluated."""
        self._syslog.ident = module
        return self._do(self._lua.call, _bytes(module), _bytes(function))

    def _do(self, function: Any, *args: object) -> Outcome:
        try:
            ok, said, trace = function(*args)
        except self._state.error as error:
            return Outcome(False, str(error))
        return Outcome(bool(ok), _text(said), _text(trace))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def _unexpected(name: str, error: BaseException) -> None:
    os.write(2, f"unexpected error in {name}:\n{''.join(traceback.format_exception(error))}".encode())
