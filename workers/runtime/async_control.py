"""Workers on asyncio: a loop that tolerates stops, and the control socket with slow methods.

The socket follows the rules of `ControlSocket`: it serves root and the worker's own user, `MAX_CONNECTIONS`
at a time, each for `LIFETIME`; further clients wait in the listen backlog. Descriptors are looked for before
anything is read, and left to a child.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import selectors
import socket
import time
from collections.abc import Callable

from supervisor.linux.peers import peer_credentials
from supervisor.log.logger import log
from supervisor.loop.loop import FAR, clock_with_suspends
from supervisor.notify.safe_close import ClosingQueue, PidfdReaper, safe_close
from supervisor.varlink.connection import ACCEPT_PAUSE, read_out_of_band_inline, receive
from supervisor.varlink.messages import Call, Framer, Malformed, encode_error, parse_call
from workers.runtime import control as limits
from workers.runtime.control import Control

IN_TIME = 0.01  # seconds by which an uninterrupted wait may be late

Ready = list[tuple[selectors.SelectorKey, int]]


class AsyncControl(Control):
    """A Control whose methods return the reply or an awaitable of it."""

    async def answer_async(self, call: Call) -> tuple[bytes, bool]:
        """Do the same as `answer`, and await the reply."""
        try:
            reply = self._begin(call)
            return self._reply(call, await reply if inspect.isawaitable(reply) else reply)
        except Exception as error:
            return self._error(call, error)


class AsyncControlSocket:
    """Owns the listening socket `fd` and the connections to it."""

    def __init__(self, fd: int, control: AsyncControl) -> None:
        self._listener = socket.socket(fileno=fd)
        self._listener.setblocking(False)
        self._control = control
        self._room = asyncio.Semaphore(limits.MAX_CONNECTIONS)
        loop = asyncio.get_running_loop()
        self._closing = ClosingQueue(loop, PidfdReaper(_Watcher(loop), loop))
        self._tasks = {loop.create_task(self._accept())}

    async def close(self) -> None:
        """End all connections; clients in the listen backlog wait for the successor."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                client, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                self._room.release()
                log.warning("cannot accept on the control socket: %s", error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            task = loop.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()

    async def _serve(self, client: socket.socket) -> None:
        """Answer all calls of a client. Owns its socket."""
        try:
            client.setblocking(False)
            read_out_of_band_inline(client)
            if _is_allowed(client):
                async with asyncio.timeout(limits.LIFETIME):
                    await self._answer_all(client)
        except (OSError, TimeoutError):
            pass  # the client hung up, or its time is over
        finally:
            safe_close(self._closing, client)

    async def _answer_all(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        framer = Framer()
        ends = False
        while not ends:
            try:
                data = await _receive(client)
                if not data:
                    break
                framer.feed(data)
                while not ends and (message := framer.take()) is not None:
                    call = parse_call(message)
                    answer, ends = await self._control.answer_async(call)
                    if not call.oneway:
                        await loop.sock_sendall(client, answer)
            except Malformed as error:
                await loop.sock_sendall(client, encode_error(error))
                ends = True


class _Watcher:
    """Watches descriptors like the project's own loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self._loop.add_reader(fd, callback, events)

    def unwatch(self, fd: int) -> None:
        self._loop.remove_reader(fd)


async def _receive(client: socket.socket) -> bytes:
    """Wait for a message and return it, like `receive`. Raises Malformed, OSError."""
    while True:
        try:
            return receive(client)
        except BlockingIOError:
            await _until_readable(client)


async def _until_readable(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(client, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(client)


def _is_allowed(client: socket.socket) -> bool:
    """Whether the client is root or our own user: the folder is closed, but a descriptor can be passed on."""
    peer = peer_credentials(client)
    if peer.uid in (0, os.geteuid()):
        return True
    log.warning("control socket: connection of %s refused", peer.describe())
    return False


class PatientLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still during noticed stops, and that judges timers after all input until then.

    asyncio handles input before timers, but a wait that was interrupted by a stop ends without looking at the
    input. A task that input has woken up runs in the next turn only. So timers that came due during a stop
    get a moment more.
    """

    def __init__(self) -> None:
        self._stopped_s = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Return seconds on a clock that stands still while this process is stopped."""
        return time.monotonic() - self._stopped_s

    def grant(self, seconds: float) -> None:
        """Postpone all timers."""
        self._stopped_s += seconds


class _Selector(selectors.EpollSelector):
    def __init__(self, loop: PatientLoop) -> None:
        super().__init__()
        self._loop = loop
        self._suspended = clock_with_suspends() - time.monotonic()

    def select(self, timeout: float | None = None) -> Ready:
        begun = clock_with_suspends()
        ready = super().select(timeout)
        late = clock_with_suspends() - begun - max(0.0, timeout or 0.0)
        if late > FAR:
            self._notice_stop(0.0 if timeout is None else late)
        # a wait that was in time has looked at the input at its end, and so has a look without a wait
        return ready if ready or not timeout or late <= IN_TIME else super().select(0)

    def _notice_stop(self, late: float) -> None:
        """Postpone timers; `late` is the number of seconds by which a wait was too long, suspensions included."""
        suspended = clock_with_suspends() - time.monotonic()
        asleep, self._suspended = suspended - self._suspended, suspended
        stopped = late - asleep
        if stopped > FAR or asleep > FAR:
            self._loop.grant(stopped + FAR if stopped > FAR else FAR)
