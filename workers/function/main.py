"""Runs one function of a module: which one is in the descriptor before the last, the answer goes to the last.

`{"path", "module", "function", "shared", "text"}` comes as JSON in a file; `text` is left out where it is one
that `share` was given, under the key `shared`.  The answer is that of `supervisor.process.run`.  An error is
written to stderr with its traceback.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import setproctitle

from supervisor.linux.libc import fflush
from supervisor.notify.service_side import passed_descriptors
from workers.lua.libraries import FUNCTION, make_libraries
from workers.lua.state import LuaState
from workers.lua.syslog import Syslog

# as login shells of root have it: a start-up script finds its programs where its author does
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LONGEST = 8192  # characters of what a function says
SHARED_TIME = 0.05  # seconds of CPU time for a text that is evaluated for all calls: the first one waits for it


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


class Function:
    """A function to call.  The slow steps happen when this is made, so that they can be before a fork."""

    def __init__(self) -> None:
        self._caller = Caller()
        self._shared: dict[str, Caller] = {}
        self._texts: dict[str, str] = {}

    def share(self, key: str, data: bytes) -> None:
        """Evaluate a text now, so that the processes forked from now on need not: `{"path", "text"}` as JSON."""
        order = json.loads(data)
        caller = Caller()
        if caller.evaluate(order["text"], order["path"], SHARED_TIME).ok:
            self._shared[key] = caller
        else:
            self._texts[key] = order["text"]  # each call has the time that it takes

    def main(self) -> int:
        """Make the call and tell what came of it; the exit status says no less."""
        _hear_signals()
        *table, (_, order_fd), (_, answer_fd) = passed_descriptors()
        with open(order_fd, "rb") as file:
            order: dict[str, Any] = json.load(file)
        setproctitle.setproctitle(f"spawnd: {order['module']}: {order['function']}")
        for _name, fd in table:
            os.set_inheritable(fd, True)  # what a program that it executes is to find
        os.environ.setdefault("PATH", PATH)
        own, place = os.getpid(), os.fstat(answer_fd)
        outcome = self._call(order)
        is_own = os.getpid() == own  # else the function has forked, and the new process came back from it
        _flush(order["function"])
        if is_own or outcome.text:
            _complain(order["function"], outcome)
        if is_own:
            _answer(outcome, answer_fd, place)
        return 0 if outcome.ok else 1

    def _call(self, order: dict[str, Any]) -> Outcome:
        caller = self._shared.get(order["shared"])
        if caller is None:
            caller = self._caller
            text = order["text"] if "text" in order else self._texts[order["shared"]]
            evaluated = caller.evaluate(text, order["path"])
            if not evaluated.ok:
                return evaluated
        return caller.call(order["module"], order["function"])


def _hear_signals() -> None:
    """Heard and not ignored: a write fails as before, and what `os.execute` or `io.popen` runs has the default."""
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(signum, lambda _signum, _frame: None)


def _flush(function: str) -> None:
    """Flush the files that it has not closed, as the end of a Lua program does."""
    sys.stdout.flush()
    try:
        fflush()
    except OSError as error:
        _say(f"{function}: cannot write what it has left in a file: {error.strerror}")


def _complain(function: str, outcome: Outcome) -> None:
    if not outcome.ok:
        _say(f"{function} failed: {outcome.text}\n{outcome.trace}".rstrip("\n"))


def _say(lines: str) -> None:
    with suppress(OSError):  # it may have closed that
        os.write(2, f"{lines}\n".encode(errors="backslashreplace"))


def _answer(outcome: Outcome, fd: int, place: os.stat_result) -> None:
    """Write the answer where it still can be: else the exit status says whether it went well.

    A function may have closed all descriptors, and opened something else that has the number by now.
    """
    with suppress(OSError):
        if os.path.samestat(os.fstat(fd), place):
            os.write(fd, json.dumps({"ok": outcome.ok, "text": outcome.text[:LONGEST]}).encode())


def main() -> int:
    """For a process that was executed anew."""
    return Function().main()
