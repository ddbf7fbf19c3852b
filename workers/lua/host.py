"""The Lua host: runs a worker's script on asyncio, and calls the script's functions.

    host = LuaHost(Path("/etc/cm4all/spawn/reaper.lua"), log.log, asyncio.get_running_loop())
    await host.execute()
    if host.has("cgroup_released"):
        await host.call("cgroup_released", released)

All code of a script runs in tasks, which are coroutines of Lua: while one waits for the database or a peer,
the others run. An error ends its task, is logged with its traceback and does no other harm. A handler that
calls `coroutine.yield` is suspended until another one resumes it. For a task, Python keeps no object of Lua,
and Lua keeps no Python object that refers to Lua: a cycle through both would be found by neither collector.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.lua.address import Resolver
from workers.lua.cgroup import Cgroups
from workers.lua.libraries import SCRIPT, Context, Log, make_libraries
from workers.lua.released import Released
from workers.lua.state import WAITS, Answering, LuaState, ScriptError, Value

_FOLDERS_OF_LUA = ("/usr/local/share/lua/5.1", "/usr/share/lua/5.1")
_FOLDERS_OF_C = tuple(f"{root}/{folder}/lua/5.1" for root in ("/usr/local", "/usr") for folder in ("lib/{arch}", "lib"))
SUSPENDED = 64  # suspended calls above which the host looks for calls that nothing can resume


class _Task:
    """A call of Lua in progress; `result` is whether it succeeded."""

    __slots__ = ("awaits", "handle", "name", "number", "problem", "result")

    def __init__(self, name: str, number: int, result: asyncio.Future[bool], handle: int | None) -> None:
        self.name = name  # for the log; without a name, the caller reports the error
        self.number = number
        self.result = result
        self.handle = handle  # of the cgroup that was passed to it
        self.awaits: asyncio.Future[Value] | None = None
        self.problem = ""  # the traceback of its error


class LuaHost:
    """Owns the Lua state and what the libraries hold for it."""

    def __init__(self, script: Path | bytes, log: Log, loop: asyncio.AbstractEventLoop) -> None:
        """`script` is a file, or the text of a script; `log` takes a level of `logging` and a text."""
        self._script = script
        self._log = log
        self._loop = loop
        self._numbers = itertools.count(1)
        self._tasks: dict[int, _Task] = {}
        self._asked: asyncio.Future[Value] | None = None  # the future for which the running task has begun to wait
        self._kinds: dict[str, str] = {}  # types of globals, cached until Lua runs again
        self._suspended: set[int] = set()  # tasks that wait for the script
        self._most_suspended = SUSPENDED
        self._state = LuaState(self._unexpected)
        self._state.load("modules.lua", *folders())
        export_symbols()
        self._lua = self._state.load_tasks(self._print, self._told)
        self._resolver = Resolver(loop)
        self._libraries = make_libraries(SCRIPT, Context(loop, self._resolver, log, self._call_back))
        (self._cgroups,) = (library for library in self._libraries if isinstance(library, Cgroups))
        for library in self._libraries:
            waiting = {name: self._waiting(name, function) for name, function in library.waiting.items()}
            self._state.install(library.name, library.functions, waiting)

    async def execute(self) -> None:
        """Execute the script, once. Raises ScriptError."""
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
        """Whether the script has a global function with that name now."""
        return self.kind(name) == "function"

    def kind(self, name: str) -> str:
        """Return Lua's type of a global now: "function", "nil", …"""
        known = self._kinds.get(name)
        if known is None:
            known = self._kinds[name] = self._lua.kind(name.encode()).decode()
        return known

    def call(self, name: str, released: Released | None = None) -> asyncio.Future[bool]:
        """Call a global function, with the cgroup if there is one; an error is logged.

        The result is whether it succeeded, and comes at its end; `released.fd` is used until then.
        """
        handle = None if released is None else self._cgroups.admit(released)
        return self._start(name, handle, self._lua.call, name.encode(), handle).result

    def end_lost(self) -> None:
        """End the suspended calls that nothing can resume, because the script has not kept their coroutines."""
        if self._suspended:
            self._lua.collect()
        for number in [number for number in self._suspended if not self._lua.is_suspended(number)]:
            task = self._tasks[number]
            self._end(task, b"it has called coroutine.yield(), and nothing can resume its coroutine")

    def close(self) -> None:
        """End all tasks where they wait, and everything else; their futures are cancelled."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            if task.awaits is not None:
                task.awaits.cancel()
            task.result.cancel()
        for library in self._libraries:
            library.close()
        self._resolver.close()
        del self._lua  # it refers to the state
        self._state.close()

    # tasks

    def _start(self, name: str, handle: int | None, entry: Any, *args: object) -> _Task:
        task = _Task(name, next(self._numbers), self._loop.create_future(), handle)
        self._go(task, entry, *args)
        return task

    def _go(self, task: _Task, entry: Any, *args: object) -> None:
        """Run a task until it waits or ends."""
        self._kinds.clear()
        try:
            outcome = entry(task.number, *args)
        except self._state.error as error:  # Lua has no memory left, or cannot report an error
            outcome = str(error).encode()
        self._settle(task, outcome)
        if len(self._suspended) >= self._most_suspended:
            self.end_lost()
            self._most_suspended = max(SUSPENDED, 2 * len(self._suspended))

    def _settle(self, task: _Task, outcome: bytes | bool | None) -> None:
        """Handle a task that stopped running; `outcome` is the result of a function of `lua/tasks.lua`."""
        if outcome is True and self._asked is not None:
            task.awaits, self._asked = self._asked, None
            self._tasks[task.number] = task
            self._suspended.discard(task.number)
            task.awaits.add_done_callback(lambda future: self._go_on(task, future))
        elif outcome is False:
            self._tasks[task.number] = task
            self._suspended.add(task.number)
        else:
            self._end(task, outcome)

    def _end(self, task: _Task, problem: Any) -> None:
        self._tasks.pop(task.number, None)
        self._suspended.discard(task.number)
        if task.handle is not None:
            self._cgroups.retire(task.handle)
        if problem is not None:
            task.problem = _text(problem)
            if task.name:
                self._log(logging.ERROR, f"script: {task.name} failed: {task.problem}")
        task.result.set_result(problem is None)

    def _told(self, number: int, outcome: bytes | bool | None) -> None:
        """Handle the outcome of a suspended task that another, still running task has resumed."""
        self._settle(self._tasks[number], outcome)

    def _go_on(self, task: _Task, future: asyncio.Future[Value]) -> None:
        if task.number not in self._tasks:
            return
        error = future.exception()
        # not raised again: its traceback would refer to this future, which refers to it
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

    # results and errors of the script

    def _call_back(self, name: str, number: int) -> asyncio.Future[bool]:
        return self._start(name, None, self._lua.call_back, number).result

    def _unexpected(self, name: str, error: BaseException) -> None:
        trace = "".join(traceback.format_exception(error))
        self._log(logging.ERROR, f"script: unexpected error in {name}: {trace}")

    def _print(self, text: bytes) -> None:
        self._log(logging.INFO, _text(text))


def _text(text: bytes) -> str:
    return text.decode(errors="backslashreplace")


# modules of the host, for `require`


def folders() -> tuple[bytes, bytes]:
    """Return the templates of Debian's folders for Lua 5.1, in the format of `lua/modules.lua`."""
    arch = getattr(sys.implementation, "_multiarch", "")  # of Debian's Python; `sysconfig` would cost half a megabyte
    for_lua = [f"{folder}/{name}" for folder in _FOLDERS_OF_LUA for name in ("?.lua", "?/init.lua")]
    for_c = [f"{folder.format(arch=arch)}/?.so" for folder in _FOLDERS_OF_C if arch or "{arch}" not in folder]
    return ";".join(for_lua).encode(), ";".join(for_c).encode()


def export_symbols() -> None:
    """Let libraries that are loaded later use the functions of Lua, which are in an extension of Python.

    Python loads extensions with private symbols. A Lua module in C is linked against no Lua library: it
    expects these functions in the process. A second dlopen(3) makes them global, and loads nothing.
    """
    from lupa import luajit21

    ctypes.CDLL(luajit21.__file__, mode=os.RTLD_NOW | os.RTLD_NOLOAD | os.RTLD_GLOBAL)
