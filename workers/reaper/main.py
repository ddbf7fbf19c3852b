"""The reaper worker: reads, deletes, logs and reports empty cgroups below its scopes."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from contextlib import AsyncExitStack, suppress

import setproctitle

from supervisor.log.logger import log, open_log, worker_logs_to_stderr
from supervisor.notify.service_side import Sender
from workers.reaper.confinement import confine
from workers.reaper.control import reaper_control
from workers.reaper.options import Options, ReaperError, read
from workers.reaper.reaper import Reaper
from workers.reaper.reports import start_script
from workers.runtime.async_control import AsyncControlSocket, PatientLoop
from workers.runtime.control import CONTROL
from workers.runtime.start import OPTIONS, passed_descriptors, read_options
from workers.runtime.status import StatusLine, Veto

READY_PAUSE = 0.5  # seconds
EX_CONFIG = 78  # sysexits.h: the next start would fail like this one


def main() -> int:
    setproctitle.setproctitle("spawnd: reaper")
    open_log("info", worker_logs_to_stderr())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each cgroup that is to be deleted takes two
    fds = passed_descriptors()
    try:
        options = read(read_options(fds[OPTIONS][0]))
        confine(options)
        with asyncio.Runner(loop_factory=PatientLoop) as runner:
            return runner.run(_work(options, fds.get(CONTROL, [None])[0]))
    except ReaperError as error:
        log.error("%s", error)
        return EX_CONFIG


async def _work(options: Options, control: int | None) -> int:
    """Work until TERM or INT, which also end a start that waits for the script's database."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unexpected)
    task = asyncio.current_task()
    assert task is not None
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, task.cancel)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # until the script's function can be called
    sender = Sender.from_environment()
    async with AsyncExitStack() as stack:
        with suppress(asyncio.CancelledError):
            await _start(stack, options, control, sender)
            gc.freeze()  # objects of the start stay, so the collector can skip them
            await _tell_ready(sender)
            await _feed_watchdog(sender)
        task.uncancel()
        sender.send_nowait("STOPPING=1")
    return os.EX_OK


async def _start(stack: AsyncExitStack, options: Options, control: int | None, sender: Sender) -> None:
    """Start all parts; `stack` ends them in the right order. Raises ReaperError."""
    loop = asyncio.get_running_loop()
    host = None
    if options.script is not None:
        host = await start_script(options.script, loop)
        stack.callback(host.close)
    reaper = Reaper(loop, options, host)
    stack.push_async_callback(reaper.stop)
    reaper.start()
    if reaper.accounting is not None:
        reaper.accounting.changed = StatusLine(loop, lambda line: _say(sender, line), reaper.accounting.status).changed
    loop.add_signal_handler(signal.SIGHUP, reaper.reload)
    Veto(loop, lambda line: _say(sender, line)).hold(True)  # cgroups run empty without a client
    if control is not None:
        stack.push_async_callback(AsyncControlSocket(control, reaper_control(reaper)).close)


def _say(sender: Sender, line: str) -> bool:
    """Send a line; return False if there is no room for it now."""
    return sender.send_nowait(line) or not sender.leads_somewhere


async def _tell_ready(sender: Sender) -> None:
    """Repeat READY=1 until it is sent, as there may be no room for it now."""
    while not _say(sender, "READY=1"):  # noqa: ASYNC110 (the other end reports no room)
        await asyncio.sleep(READY_PAUSE)


async def _feed_watchdog(sender: Sender) -> None:
    """Feed spawnd's watchdog twice in each of its intervals, forever."""
    usec = os.environ.pop("WATCHDOG_USEC", "")
    pause = int(usec) / 2e6 if usec.isdecimal() else None
    while pause is not None:
        sender.send_nowait("WATCHDOG=1")
        await asyncio.sleep(pause)
    await asyncio.Event().wait()


def _log_unexpected(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    error = context.get("exception")
    log.error("%s", context["message"], exc_info=error if isinstance(error, BaseException) else None)
