"""Evaluates one definition file in its own isolated Lua state.

Runs only in the short-lived child. The result is plain data as described in `values`. No Python object is
reachable from Lua: the shipped Lua files return text.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from supervisor.definitions.problems import did_you_mean
from supervisor.places import lua_file

MAX_MEMORY = 64 * 1024 * 1024
MAX_RESULT = 16 * 1024 * 1024
AS_LONG = 3  # so many files may use up the whole time of one: the others have to be evaluated nevertheless
LEAST = 0.01  # seconds; with less, no file is tried
GRACE = 0.3  # seconds of CPU time in which the hook can end the Lua code itself, and name the line

_PLACE = re.compile("\1:([0-9]+): ?")
_OURS = re.compile(r'\[string "[^"]*"\]:[0-9]+: ')  # the place of a call that the file made as a tail call
_UNKNOWN = re.compile(r"attempt to (?:call|index) (global|field) '(\w+)' \(a (?:nil|table) value\)")
CONSTRUCTORS = ("file", "udp", "tcp", "stream", "dgram", "seqpacket", "log")
NAMES = frozenset(CONSTRUCTORS) | frozenset(
    "ports assert error getmetatable ipairs next pairs pcall rawequal rawget rawset select setmetatable tonumber "
    "tostring type unpack xpcall string table math bit coroutine os print netns module package depends _G "
    "_VERSION".split()
)


class LuaProblem(Exception):
    """The file cannot be evaluated; `line` is 0 if unknown."""

    def __init__(self, message: str, line: int = 0, *, final: bool = False) -> None:
        super().__init__(message)
        self.line = line
        self.final = final  # the time of all files is used up, so no other can be evaluated either


@dataclass(frozen=True, slots=True)
class Global:
    """A global variable or a field of `netns`.

    `line` is where it was set. `before` is where another table was set before, or 0.
    """

    name: object
    line: int
    value: Any
    before: int


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a module; `line` and `before` as in `Global`."""

    name: str
    line: int
    before: int


@dataclass(frozen=True, slots=True)
class Module:
    """Definitions after `module(name)`, on `line`: globals, functions, and the names in `depends(_M, …)`.

    `reached` has everything that its functions depend on, as `lua/reached.lua` writes it; '' if that is unknown.
    """

    name: str
    line: int
    keys: list[Global]
    functions: list[Function]
    depends: list[tuple[int, Any]]
    reached: str


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Result of one file: its globals, modules and network namespaces, its prints, and the unset names that it read.

    `reads_clock`: the next evaluation of the same text may have another result.
    """

    globals: list[Global]
    modules: list[Module]
    netns: list[Global]
    prints: list[tuple[int, str]]
    undefined: list[tuple[str, int]]
    reads_clock: bool


class Lua:
    """Evaluates files.

    The Lua code of each file may use `deadline_s` seconds of CPU time, that of all files AS_LONG times that.
    """

    def __init__(self, deadline_s: float) -> None:
        from lupa import luajit21  # takes 6 ms, and only this child needs it

        self._lua = luajit21
        self._preludes = [lua_file("sandbox.lua"), lua_file("reached.lua"), lua_file("definitions.lua")]
        self._compiled = False
        self._deadline_s = deadline_s
        self._left_s = AS_LONG * deadline_s

    def evaluate(self, text: str, name: str = "") -> Evaluated:
        """Evaluate a file's text; `name` is the value of `...` in it. Raises LuaProblem."""
        limit_s = min(self._deadline_s, self._left_s)
        try:
            result = self._evaluate_text(text.encode(), limit_s, name.encode(errors="surrogateescape"))
        except self._lua.LuaMemoryError:
            raise LuaProblem(_TOO_MUCH) from None
        except self._lua.LuaError as error:
            raise LuaProblem(f"cannot evaluate: {_first_line(str(error))}") from None
        self._compile()
        if len(result) > MAX_RESULT:
            raise LuaProblem(f"cannot use: its values take more than {MAX_RESULT >> 20} MiB")
        return self._read(json.loads(result.decode("utf-8", "surrogateescape"), strict=False), limit_s)

    def _evaluate_text(self, text: bytes, limit_s: float, name: bytes) -> bytes:
        runtime = self._lua.LuaRuntime(
            encoding=None, max_memory=MAX_MEMORY, register_eval=False, register_builtins=False
        )
        sandbox, reached, definitions = self._preludes
        made = runtime.execute(sandbox)
        run = runtime.execute(definitions, made, runtime.execute(reached, made))
        begin = time.process_time()
        try:
            with _bounded(limit_s + GRACE):
                result: bytes = run(text, limit_s, name)
        finally:
            self._left_s = max(0.0, self._left_s - (time.process_time() - begin))
        return result

    def _compile(self) -> None:
        """Compile the shipped Lua files: with a thousand files, each then takes 0.1 ms instead of 0.6."""
        if not self._compiled:
            dump = self._lua.LuaRuntime(encoding=None).execute(_DUMP)
            self._preludes = list(map(dump, self._preludes))
            self._compiled = True

    def _read(self, answer: dict[str, Any], limit_s: float) -> Evaluated:
        if "error" not in answer:
            return Evaluated(
                [Global(*item) for item in answer["globals"]],
                list(map(_module, answer["modules"])),
                sorted((Global(*item) for item in answer["netns"]), key=lambda item: (item.line, str(item.name))),
                [(line, text) for line, text in answer["prints"]],
                [(name, line) for name, line in answer["undefined"]],
                answer["reads_clock"],
            )
        if answer["overtime"]:
            all_s = AS_LONG * self._deadline_s
            rest = f", which is what was left of {all_s:g} s for all files" if limit_s < self._deadline_s else ""
            message = f"took longer than {limit_s:.2g} s{rest}; an endless loop?"
            raise LuaProblem(message, answer["line"], final=self._left_s < LEAST)
        raise _problem(answer["error"], answer["line"])


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Have SIGPROF end this process after this CPU time: no hook is called inside a library function."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


_DUMP = b"return function(text) return string.dump(loadstring(text), true) end"
_TOO_MUCH = f"needs more than {MAX_MEMORY >> 20} MiB of memory"


def _module(item: dict[str, Any]) -> Module:
    keys = [Global(*entry) for entry in item["keys"]]
    functions = [Function(*entry) for entry in item["functions"]]
    depends = [(line, name) for line, name in item["depends"]]
    return Module(item["name"], item["line"], keys, functions, depends, item["reached"])


def _problem(message: str, line: int) -> LuaProblem:
    """Return Lua's own message without its place, and with a hint about missing names."""
    if message == "not enough memory":
        return LuaProblem(_TOO_MUCH, line)
    place = _PLACE.match(message)
    if place:
        line = int(place[1])
        message = message[place.end() :]
    message = _OURS.sub("", _PLACE.sub("", message))
    if unknown := _UNKNOWN.search(message):
        message += missing(unknown[2], unknown[1] == "field")
    return LuaProblem(_first_line(message), line)


def missing(name: str, is_field: bool = False) -> str:
    """Return a hint about a global, or a field of a table, that definitions do not have."""
    from supervisor.definitions import synonyms  # only an error needs it

    if is_field:
        return synonyms.function(name)
    if name in NAMES:
        return "; a module sees it with package.seeall"
    return synonyms.function(name) or did_you_mean(name, NAMES)


def _first_line(text: str) -> str:
    return text.replace("\1", "").strip().split("\n", 1)[0]
