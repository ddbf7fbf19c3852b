"""A Lua state for scripts, and its access to the Python functions of the libraries.

A script cannot reach objects of Python: `python` is removed, attributes are refused, and the functions are
hidden in closures of the libraries. It is still trusted, because it has `ffi` and `debug`: this prevents
accidents, not attacks.

A Python function takes plain values (None, bool, int, float, bytes) and `Opaque` objects and returns such:
one, or a tuple of several. Exceptions never get into Lua, where each would keep its traceback, and everything
that it refers to, for any time. If the number of an error matters to the script, `with_errno` returns it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from supervisor.errors import SpawnError
from supervisor.places import lua_file

DONE, FAILED, RAISED, WAITS = range(4)  # as in lua/kernel.lua and lua/tasks.lua

Value = Any  # None, bool, int, float, bytes, str, Opaque, or a tuple of these
Functions = Mapping[str, Callable[..., Value]]
Answering = Callable[..., tuple[Value, ...]]  # the answer, then the values or the message
Unexpected = Callable[[str, BaseException], None]


class ScriptError(SpawnError):
    """The script cannot be read, is not Lua, or raised an error; the text has Lua's traceback."""


class Fault(SpawnError):
    """The script called a function wrongly; the error is raised in it, at the line of the call."""


class Failure(SpawnError):
    """The script's request cannot be fulfilled now; the function returns nil and this text."""


def bad_argument(name: str, number: int, what: str) -> Fault:
    """Return a Fault worded like Lua's own libraries; a method's arguments are counted without its object."""
    return Fault(f"bad argument #{number} to '{name}' ({what})")


class Opaque:
    """A handle that a library's Lua part can only hold and pass back."""

    __slots__ = ()


class LuaState:
    """Owns a LuaJIT runtime. `unexpected` gets unexpected exceptions, with the name of the function."""

    def __init__(self, unexpected: Unexpected) -> None:
        from lupa import luajit21  # takes 6 ms, and a worker without a script needs none

        self.error: type[Exception] = luajit21.LuaError
        self._unexpected = unexpected
        self._runtime = luajit21.LuaRuntime(
            encoding=None,
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_refuse,
        )
        self._runtime.execute(b"python = nil package.loaded.python = nil")
        self._kernel = self.load("kernel.lua")

    def close(self) -> None:
        """Free the runtime with everything in it, provided that nothing else refers to its objects."""
        del self._kernel, self._runtime  # its functions refer to this object

    def load(self, name: str, *args: object) -> Any:
        """Run a shipped Lua file; return its result."""
        return self._runtime.execute(lua_file(name), *args, name=f"=[lua/{name}]".encode())

    def globals(self) -> Any:
        return self._runtime.globals()

    def load_tasks(self, log: Callable[[bytes], None], told: Callable[[int, Any], None]) -> Any:
        """Let calls run in coroutines that can wait; return the functions of `lua/tasks.lua` for the host."""
        return self.load("tasks.lua", self._kernel, log, told)

    def install(self, name: str, functions: Functions, waiting: Mapping[str, Answering] | None = None) -> None:
        """Load the library `lua/NAME.lua` and set its globals.

        It gets the kernel and its Python functions. Those in `functions` are wrapped as in `answer`. Those in
        `waiting` return such answers themselves, including WAITS, which needs `load_tasks`.
        """
        plain = {each: self._plain(each, function) for each, function in functions.items()}
        python = self._kernel.functions(self._table(plain))
        if waiting:
            for each, function in self._kernel.waiting(self._table(waiting)).items():
                python[each] = function
        for each, value in self.load(f"{name}.lua", self._kernel, python).items():
            self.globals()[each] = value

    def answer(self, name: str, function: Callable[..., Value], *args: object) -> tuple[Value, ...]:
        """Call a function; return the answer for Lua."""
        try:
            return (DONE, *values(function(*args)))
        except Exception as error:
            return self.refusal(name, error)

    def refusal(self, name: str, error: BaseException) -> tuple[Value, ...]:
        """Return the answer about an exception for Lua."""
        match error:
            case Fault():
                return RAISED, os.fsencode(str(error))
            case Failure():
                return FAILED, os.fsencode(str(error))
            case OSError():
                return FAILED, os.fsencode(error.strerror or str(error))
        self._unexpected(name, error)
        return RAISED, f"unexpected error in {name}: {error}".encode(errors="backslashreplace")

    def _table(self, functions: Mapping[str, Answering]) -> Any:
        return self._runtime.table_from({name.encode(): function for name, function in functions.items()})

    def _plain(self, name: str, function: Callable[..., Value]) -> Answering:
        return lambda *args: self.answer(name, function, *args)


def values(result: Value) -> tuple[Value, ...]:
    """Return a function's result in the types of Lua. Raises TypeError for an object of Python."""
    return tuple(_value(item) for item in result) if isinstance(result, tuple) else (_value(result),)


def _value(value: Value) -> Value:
    if value is None or isinstance(value, (bool, int, float, bytes, Opaque)):
        return value
    if isinstance(value, str):
        return os.fsencode(value)
    raise TypeError(f"cannot give {value!r} to Lua")


def _refuse(_object: object, name: object, _setting: bool) -> str:
    raise AttributeError(f"{name!r} is not for scripts")


def failure(error: OSError) -> tuple[None, str, int]:
    """Return `nil, message, errno` like Lua's own `io`; the message names the file, if any."""
    text = error.strerror or str(error)
    name = error.filename
    if name is None:
        return None, text, error.errno or 0
    return None, f"{os.fsdecode(name) if isinstance(name, (str, bytes)) else name}: {text}", error.errno or 0


def with_errno(functions: Mapping[str, Callable[..., Value]]) -> dict[str, Callable[..., Value]]:
    """Wrap functions so that each returns `failure` instead of raising an OSError, and true instead of nothing."""
    return {name: _with_errno(function) for name, function in functions.items()}


def _with_errno(function: Callable[..., Value]) -> Callable[..., Value]:
    def call(*args: object) -> Value:
        try:
            result = function(*args)
        except OSError as error:
            return failure(error)
        return True if result is None else result

    return call
