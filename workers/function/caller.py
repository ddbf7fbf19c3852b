"""The Lua side of calls: the sandbox that a text was checked in, and the libraries that are open to its functions."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from typing import Any

from workers.lua.fsys import Fsys
from workers.lua.net import Net
from workers.lua.proc import Proc
from workers.lua.state import LuaState
from workers.lua.syslog import Syslog
from workers.lua.unix import Unix


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether it went well, what it says, and the traceback of an error."""

    ok: bool
    text: str = ""
    trace: str = ""


class Caller:
    """Owns a Lua state, good for one text and one call."""

    def __init__(self) -> None:
        self._state = LuaState(_unexpected)
        self._syslog = Syslog()
        for library in (Fsys(), Net(), Proc(), Unix(), self._syslog):
            self._state.install(library.name, library.functions)
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
