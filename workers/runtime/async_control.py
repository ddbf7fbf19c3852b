"""A worker's control socket on asyncio, with methods that may take their time.

The same rules as in `control_socket.py`: root and the worker's own user, `MAX_CONNECTIONS` at
once, those behind them wait in the backlog, `LIFETIME` for each.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket

from supervisor.linux.peers import peer_credentials
from supervisor.log.logger import log
from supervisor.varlink.acceptor import ACCEPT_PAUSE
from supervisor.varlink.errors import Malformed
from supervisor.varlink.messages import Call, Framer, encode_error, parse_call
from workers.runtime import control_socket
from workers.runtime.control import Control

CHUNK = 1 << 16


class AsyncControl(Control):
    """Its methods return the reply, or what can be awaited for it."""

    async def answer_async(self, call: Call) -> tuple[bytes, bool]:
        """As `answer`."""
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
        self._room = asyncio.Semaphore(control_socket.MAX_CONNECTIONS)
        self._tasks = {asyncio.get_running_loop().create_task(self._accept())}

    async def close(self) -> None:
        """End all connections; who waits in the backlog waits for the successor."""
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
        """Answer all calls of a client.  Owns its socket."""
        with client:
            client.setblocking(False)
            try:
                if _is_allowed(client):
                    async with asyncio.timeout(control_socket.LIFETIME):
                        await self._answer_all(client)
            except (OSError, TimeoutError):
                pass  # it hung up, or had its time

    async def _answer_all(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        framer = Framer()
        ends = False
        while not ends and (data := await loop.sock_recv(client, CHUNK)):
            framer.feed(data)
            try:
                while not ends and (message := framer.take()) is not None:
                    call = parse_call(message)
                    answer, ends = await self._control.answer_async(call)
                    if not call.oneway:
                        await loop.sock_sendall(client, answer)
            except Malformed as error:
                await loop.sock_sendall(client, encode_error(error))
                ends = True


def _is_allowed(client: socket.socket) -> bool:
    """Whether it is root or our own user: a socket in a closed folder, but a descriptor can be passed on."""
    peer = peer_credentials(client)
    if peer.uid in (0, os.geteuid()):
        return True
    log.warning("control socket: connection of uid %d, pid %d refused", peer.uid, peer.pid)
    return False
