"""A worker with a control socket, as small as they come."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Any

from supervisor.log.logger import log
from supervisor.loop.loop import Loop
from supervisor.varlink.messages import ControlError
from workers.runtime.async_control import AsyncControl, AsyncControlSocket
from workers.runtime.control import Control, ControlSocket

INTERFACE = """
interface io.spawnd.greeter

# Greets somebody, so many times.
method Greet(name: string, times: ?int) -> (text: string)
method Pid() -> (pid: int)
method Break(how: string) -> ()
error TooRude (name: string)
"""


def greet(parameters: dict[str, Any]) -> dict[str, object]:
    if parameters["name"] == "you there":
        raise ControlError("io.spawnd.greeter.TooRude", name=parameters["name"])
    return {"text": " ".join([f"Hello {parameters['name']}."] * (parameters["times"] or 1))}


def pid(_parameters: dict[str, Any]) -> dict[str, object]:
    return {"pid": os.getpid()}


def broken(parameters: dict[str, Any]) -> dict[str, object]:
    match parameters["how"]:
        case "raise":
            raise KeyError("broken")
        case "reply":
            return {"more": "than described"}
        case _:
            return {}


async def greet_later(parameters: dict[str, Any]) -> dict[str, object]:
    await asyncio.sleep(0)
    return greet(parameters)


def make_control() -> Control:
    return Control("greeter", INTERFACE, {"Greet": greet, "Pid": pid, "Break": broken})


def run(listener: socket.socket) -> None:
    """Be the worker, until a TERM."""
    log.propagate = False
    loop = Loop(on_error=lambda error: os._exit(3))
    control = ControlSocket(loop, listener.detach(), make_control())
    loop.on_signal(signal.SIGTERM, loop.stop)
    loop.run()
    control.close()
    loop.close()


def run_async(listener: socket.socket) -> None:
    """The same on asyncio."""
    log.propagate = False

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, _context: os._exit(3))
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        control = AsyncControl("greeter", INTERFACE, {"Greet": greet_later, "Pid": pid, "Break": broken})
        server = AsyncControlSocket(listener.detach(), control)
        await ended.wait()
        await server.close()

    asyncio.run(serve())
