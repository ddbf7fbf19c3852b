"""Runs one function of a module. The order is in the last descriptor but one, the answer goes to the last one.

The order `{"path", "module", "function", "shared", "text"}` is JSON in a file. It has no `text` if `share`
has received the text, under the key `shared`. The format of the answer is in `supervisor.process.run`. An
error is written to stderr with its traceback.
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

# like login shells of root: a start-up script finds the same programs as its author
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LONGEST = 8192  # characters of a function's message
SHARED_TIME = 0.05  # seconds of CPU time to evaluate a text for all calls, while the first one waits


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a call: whether it succeeded, its text, and the traceback of an error."""

    ok: bool
    text: str = ""
    trace: str = ""


class Caller:
    """Owns a Lua state, for one text and one call."""

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
        """Run the text, which defines its modules, with a limit of `seconds` of CPU time if given."""
        name = os.path.basename(path).removesuffix(".lua")
        return self._do(self._lua.evaluate, *map(_bytes, (text, path, name)), seconds)

    def call(self, module: str, function: str) -> Outcome:
        """Call a function of the evaluated text."""
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
    """A function to call. The slow steps happen in the constructor, so that they can precede a fork."""

    def __init__(self) -> None:
        self._caller = Caller()
        self._shared: dict[str, Caller] = {}
        self._texts: dict[str, str] = {}

    def share(self, key: str, data: bytes) -> None:
        """Evaluate a text now for all processes that are forked later: `{"path", "text"}` as JSON."""
        order = json.loads(data)
        caller = Caller()
        if caller.evaluate(order["text"], order["path"], SHARED_TIME).ok:
            self._shared[key] = caller
        else:
            self._texts[key] = order["text"]  # each call takes the time that it needs

    def main(self) -> int:
        """Make the call and report its result, which is also in the exit status."""
        _hear_signals()
        *table, (_, order_fd), (_, answer_fd) = passed_descriptors()
        with open(order_fd, "rb") as file:
            order: dict[str, Any] = json.load(file)
        setproctitle.setproctitle(f"spawnd: {order['module']}: {order['function']}")
        for _name, fd in table:
            os.set_inheritable(fd, True)  # for a program that the function executes
        os.environ.setdefault("PATH", PATH)
        own, place = os.getpid(), os.fstat(answer_fd)
        with suppress(OSError):
            os.write(answer_fd, b"\n")  # it has begun
        outcome = self._call(order)
        is_own = os.getpid() == own  # else the function has forked, and this is the new process
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
    """Handle signals instead of ignoring them: writes fail as before, and programs run by Lua have the default."""
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(signum, lambda _signum, _frame: None)


def _flush(function: str) -> None:
    """Flush the files that the function has not closed, like the end of a Lua program."""
    sys.stdout.flush()
    try:
        fflush()
    except OSError as error:
        _say(f"{function}: cannot write files that it has not closed: {error.strerror}")


def _complain(function: str, outcome: Outcome) -> None:
    if not outcome.ok:
        _say(f"{function} failed: {outcome.text}\n{outcome.trace}".rstrip("\n"))


def _say(lines: str) -> None:
    with suppress(OSError):  # the function may have closed it
        os.write(2, f"{lines}\n".encode(errors="backslashreplace"))


def _answer(outcome: Outcome, fd: int, place: os.stat_result) -> None:
    """Write the answer if its descriptor is intact; otherwise only the exit status reports the result.

    A function may have closed all descriptors, and opened another file with the same number.
    """
    with suppress(OSError):
        if os.path.samestat(os.fstat(fd), place):
            os.write(fd, json.dumps({"ok": outcome.ok, "text": outcome.text[:LONGEST]}).encode())


def main() -> int:
    """Run as a process that was executed anew."""
    return Function().main()
