"""The Lua host: runs a worker's script on asyncio, and calls what the script defines.

    host = LuaHost(Path("/etc/cm4all/spawn/reaper.lua"), log.log, asyncio.get_running_loop())
    await host.run()
    if host.has("cgroup_released"):
        await host.call("cgroup_released", released)

Everything that a script does runs in a task, a coroutine of Lua: while one waits, for the
database or a peer, the others run.  An error ends its task, is logged with its traceback and
harms nothing else.  Python keeps no object of Lua for a task, nor Lua one of Python that knows
Lua: no cycle goes through both, which neither collector would find.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.lua.cgroup import Cgroups
from workers.lua.errors import ScriptError
from workers.lua.libraries import libraries
from workers.lua.library import Context, Library, Log
from workers.lua.released import Released
from workers.lua.state import WAITS, Answering, LuaState, Value


class _Task:
    """A call of Lua that is under way; `result` is whether it ended well."""

    __slots__ = ("awaits", "handle", "name", "number", "problem", "result")

    def __init__(self, name: str, number: int, result: asyncio.Future[bool], handle: int | None) -> None:
        self.name = name  # for the log; without one its maker tells of the error
        self.number = number
        self.result = result
        self.handle = handle  # of the cgroup that it was given
        self.awaits: asyncio.Future[Value] | None = None
        self.problem = ""  # the traceback of its error


class LuaHost:
    """Owns the Lua state and what the libraries hold for it."""

    def __init__(self, script: Path | bytes, log: Log, loop: asyncio.AbstractEventLoop) -> None:
        """`script` is a file, or the text of one; `log` takes a level of `logging` and a text."""
        self._script = script
        self._log = log
        self._loop = loop
        self._numbers = itertools.count(1)
        self._tasks: dict[int, _Task] = {}
        self._asked: asyncio.Future[Value] | None = None  # what the task that runs now has begun to wait for
        self._functions: dict[str, bool] = {}  # that were asked for since Lua ran, and whether there are such ones
        self._state = LuaState(self._unexpected)
        self._lua = self._state.load_tasks(self._print)
        self._cgroups = Cgroups()
        self._libraries: list[Library] = [self._cgroups, *libraries(Context(loop, log, self._call_back))]
        for library in self._libraries:
            waiting = {name: self._waiting(name, function) for name, function in library.waiting.items()}
            self._state.install(library.name, library.functions, waiting)

    async def run(self) -> None:
        """Execute the script, once.  Raises ScriptError."""
        script = self._script
        try:
            text = script.read_bytes() if isinstance(script, Path) else script
        except OSError as error:
            raise ScriptError(f"cannot read script {str(script)!r}: {error.strerror}") from error
        name = b"@" + os.fsencode(script) if isinstance(script, Path) else b"=script"
        task = self._start("", None, self._lua.run, text, name)
        if not await task.result:
            raise ScriptError(f"cannot execute the script: {task.problem}")

    def has(self, name: str) -> bool:
        """Whether the script defines that global function now."""
        known = self._functions.get(name)
        if known is None:
            known = self._functions[name] = bool(self._lua.has(name.encode()))
        return known

    def call(self, name: str, released: Released | None = None) -> asyncio.Future[bool]:
        """Call a global function, with that cgroup where there is one; an error is logged.

        The result is whether it ended well, and comes when it has ended; `released.fd` is used until then.
        """
        handle = None if released is None else self._cgroups.admit(released)
        return self._start(name, handle, self._lua.call, name.encode(), handle).result

    def close(self) -> None:
        """End all tasks where they wait, and everything else; their futures are cancelled."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            if task.awaits is not None:
                task.awaits.cancel()
            task.result.cancel()
        for library in self._libraries:
            library.close()
        del self._lua  # it holds the state
        self._state.close()

    # tasks

    def _start(self, name: str, handle: int | None, entry: Any, *args: object) -> _Task:
        task = _Task(name, next(self._numbers), self._loop.create_future(), handle)
        self._go(task, entry, *args)
        return task

    def _go(self, task: _Task, entry: Any, *args: object) -> None:
        """Let a task run until it waits or ends."""
        self._functions.clear()
        try:
            outcome = entry(task.number, *args)
        except self._state.error as error:  # Lua has no memory left, or cannot tell of an error
            outcome = str(error).encode()
        if outcome is True and self._asked is not None:
            task.awaits, self._asked = self._asked, None
            self._tasks[task.number] = task
            task.awaits.add_done_callback(lambda future: self._go_on(task, future))
            return
        self._tasks.pop(task.number, None)
        if task.handle is not None:
            self._cgroups.retire(task.handle)
        if outcome is not None:
            task.problem = _text(outcome)
            if task.name:
                self._log(logging.ERROR, f"script: {task.name} failed: {task.problem}")
        task.result.set_result(outcome is None)

    def _go_on(self, task: _Task, future: asyncio.Future[Value]) -> None:
        if task.number not in self._tasks:
            return
        error = future.exception()
        # not raised again: its traceback would hold this future, which holds it
        refusal = None if error is None else self._state.refusal(task.name, error)
        self._go(task, self._lua.resume, *(refusal or self._state.answer(task.name, future.result)))

    def _waiting(self, name: str, function: Callable[..., Any]) -> Answering:
        def call(*args: object) -> Value:
            result = function(*args)
            if asyncio.iscoroutine(result):
                result = self._loop.create_task(result)
            if isinstance(result, asyncio.Future):
                self._asked = result
                return None
            return result

        def answer(*args: object) -> tuple[Value, ...]:
            self._asked = None
            answered = self._state.answer(name, call, *args)
            return answered if self._asked is None else (WAITS,)

        return answer

    # what becomes of their errors

    def _call_back(self, name: str, number: int) -> asyncio.Future[bool]:
        return self._start(name, None, self._lua.call_back, number).result

    def _unexpected(self, name: str, error: BaseException) -> None:
        trace = "".join(traceback.format_exception(error))
        self._log(logging.ERROR, f"script: unexpected error in {name}: {trace}")

    def _print(self, text: bytes) -> None:
        self._log(logging.INFO, _text(text))


def _text(text: bytes) -> str:
    return text.decode(errors="backslashreplace")
