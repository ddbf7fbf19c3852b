"""The host's resolver without blocking the loop: its C function is called in threads of our own.

A name server that does not answer holds a thread for as long as the resolver tries.  Nobody
waits for these threads, at the end of the process neither, as for those of asyncio's executor.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from contextlib import suppress

from workers.lua.address import Address, Name, parse
from workers.lua.errors import Failure

_THREADS = 4  # that may wait for name servers at a time
_Request = tuple[Name, int, "asyncio.Future[list[Address]]"]


class Resolver:
    """Owns its threads, which begin with the first name that is asked for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def addresses(self, text: bytes, kind: int, port: int | None = None) -> list[Address]:
        """What `text` stands for, at least one; `kind` is SOCK_STREAM, …, `port` the default.  Raises Failure."""
        parsed = parse(text, port)
        if isinstance(parsed, Address):
            return [parsed]
        if len(self._threads) < _THREADS:
            self._threads.append(threading.Thread(target=self._serve, name="resolver", daemon=True))
            self._threads[-1].start()
        answer: asyncio.Future[list[Address]] = self._loop.create_future()
        self._requests.put((parsed, kind, answer))
        return await answer

    def close(self) -> None:
        for _ in self._threads:
            self._requests.put(None)

    def _serve(self) -> None:
        while (request := self._requests.get()) is not None:
            name, kind, answer = request
            found: list[Address] | Failure
            try:
                found = _resolve(name, kind)
            except Failure as failure:
                found = failure
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_set, answer, found)


def _resolve(name: Name, kind: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(name.host, name.port, type=kind)
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise Failure(f"cannot resolve {name.host!r}, port {name.port!r}: {cause}") from error
    return [Address(family, sockaddr) for family, _type, _protocol, _canonical, sockaddr in found]


def _set(answer: asyncio.Future[list[Address]], found: list[Address] | Failure) -> None:
    if answer.done():
        return
    if isinstance(found, Failure):
        answer.set_exception(found)
    else:
        answer.set_result(found)
