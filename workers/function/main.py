"""Runs one function of a module: which one is in the descriptor before the last, the answer goes to the last.

`{"path", "module", "function", "shared", "text"}` comes as JSON in a file; `text` is left out where it is one
that `share` was given, under the key `shared`.  The answer is that of `supervisor.process.answer`.  An error is
written to stderr with its traceback.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import setproctitle

from supervisor.notify.passed import passed_descriptors
from workers.function.caller import Caller, Outcome

# as login shells of root have it: a start-up script finds its programs where its author does
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LONGEST = 8192  # characters of what a function says
SHARED_TIME = 0.05  # seconds of CPU time for a text that is evaluated for all: somebody waits for it


class Function:
    """All that takes long is done when this is made, so that it can be before a fork."""

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
        *table, (_, order_fd), (_, answer_fd) = passed_descriptors()
        with open(order_fd, "rb") as file:
            order: dict[str, Any] = json.load(file)
        setproctitle.setproctitle(f"spawnd: {order['module']}: {order['function']}")
        for _name, fd in table:
            os.set_inheritable(fd, True)  # what a program that it executes is to find
        os.environ.setdefault("PATH", PATH)
        own = os.getpid()
        outcome = self._call(order)
        sys.stdout.flush()
        if os.getpid() == own:  # else the function has forked, and the new process came back from it
            _tell(order["function"], outcome, answer_fd)
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


def _tell(function: str, outcome: Outcome, fd: int) -> None:
    if not outcome.ok:
        lines = f"{function} failed: {outcome.text}\n{outcome.trace}".rstrip("\n")
        os.write(2, f"{lines}\n".encode(errors="backslashreplace"))
    os.write(fd, json.dumps({"ok": outcome.ok, "text": outcome.text[:LONGEST]}).encode())


def main() -> int:
    """For a process that was executed anew."""
    return Function().main()
