"""A forked worker: its plan, its way to a child of a fork server, its set-up, and its run.

The process shares spawnd's memory until it writes to it, so its set-up is done in C, by the code of `launch`. Its
plan is made before the fork.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterable
from typing import NoReturn

from supervisor.launch.program import carry_out_forked, in_fork, in_messages
from supervisor.linux.descriptors import memfd
from supervisor.log.logger import close_inherited_log
from supervisor.process.failure import ErrorPipe, failed, step
from supervisor.process.fork import EXIT_CHILD_FAILED
from supervisor.process.fork_server import SOCKET
from supervisor.process.launch import Launch
from supervisor.process.launch_plan import descriptors, make_plan

MOST = 253  # descriptors per message: SCM_MAX_FD
PIECE = 65536  # bytes per read of a plan

Main = Callable[[], int]


def forked_plan(launch: Launch, hears: bool = True) -> bytes:
    """Return the plan for a child of spawnd. Without `hears`, signals stay blocked, and the worker unblocks them.

    Raises StepError.
    """
    return make_plan(launch, in_fork(descriptors(launch), launch.error_fd), hears)


def send_plan(fd: int, launch: Launch, hears: bool = True) -> None:
    """Send the plan and the descriptors to a child of a fork server, on the socket `fd` and before the fork.

    The child has no other descriptor. Never waits. Raises StepError.
    """
    own = list(descriptors(launch))
    plan = make_plan(launch, in_messages(own, SOCKET), hears)
    connection = socket.socket(fileno=fd)
    try:
        with step("hand over descriptors"):
            data = memfd("plan", plan)
            try:
                socket.send_fds(connection, [b"p"], [data])
            finally:
                os.close(data)
            for first in range(0, len(own), MOST):
                socket.send_fds(connection, [b"d"], own[first : first + MOST])
    finally:
        connection.detach()


def receive_plan(fd: int) -> bytes:
    """Read a plan from the socket `fd`, where its descriptors follow. Raises StepError if spawnd is gone."""
    with socket.socket(fileno=os.dup(fd)) as connection, step("take over descriptors"):
        message, fds, _flags, _address = socket.recv_fds(connection, 1, 1)
    if not message:
        raise failed("take over descriptors", "", 0, "spawnd is gone")
    with open(fds[0], "rb") as file:
        return file.read()


def become_worker(plan: bytes, error_fd: int, load: Callable[[], Main]) -> NoReturn:
    """Become a worker. Called in the child with all signals blocked; never returns.

    After the set-up, `load` imports the worker and returns its main function, which returns the exit status. An
    earlier failure is reported on `error_fd`, and the exit status is EXIT_CHILD_FAILED. The same holds if no spawnd
    that knows this child is left. Owns all descriptors of the process; the set-up leaves only those of the table.
    """
    pipe = ErrorPipe(error_fd)
    try:
        gc.disable()  # a collection would copy every page that it marks
        close_inherited_log()
        assignments, pipe.fd = carry_out_forked(plan, error_fd)
        _go_on(assignments)
        main = load()
        pipe.close()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            pipe.report(error)
        os._exit(EXIT_CHILD_FAILED)
    run_worker(main)


def _go_on(assignments: Iterable[bytes]) -> None:
    """Go on in Python with the environment of the service."""
    for name in list(os.environb):  # clear() would list all variables again for each
        del os.environb[name]
    for assignment in assignments:
        name, _, value = assignment.partition(b"=")
        os.environb[name] = value
    gc.freeze()  # collections of the worker must not visit, and thus copy, objects of spawnd
    gc.enable()


def run_worker(main: Main) -> NoReturn:
    """Run a worker in a forked child after its set-up; the result of its main function is the exit status."""
    status = EXIT_CHILD_FAILED
    try:
        # as in every Python process: a write without a reader is an error and not the end
        for signum in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(signum, signal.SIG_IGN)
        status = main()
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else EXIT_CHILD_FAILED if exit.code else 0
    except BaseException:
        with contextlib.suppress(BaseException):
            os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(status)
