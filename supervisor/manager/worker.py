"""Starting a built-in worker: in a forked child, or in a new interpreter for a worker that is not root.

A worker that runs in many copies has a fork server.  A page that spawnd writes to after a fork is the child's own
from then on, and spawnd writes all the time.  A fork server does nothing between two forks and lives as long as
spawnd does, so its workers go on sharing what none of them has written to.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

import setproctitle

from supervisor.interpreter import interpreter
from supervisor.linux.memfd import memfd
from supervisor.linux.signal_mask import block_all
from supervisor.loop.loop import Loop
from supervisor.manager.launch_message import receive_launch, send_launch
from supervisor.process import child
from supervisor.process.children import Children
from supervisor.process.fork_server import ForkServer
from supervisor.process.launch import Launch

OPTIONS = "options"  # the name of the descriptor that holds them


def load_shared(name: str) -> None:
    """Import what each process of a worker would import anew, if it says that there is something.

    In spawnd, before the fork: it is asked for by name and nothing else is known of it.  Raises whatever that raises.
    """
    from workers.runtime.start import load_shared

    load_shared(name)


def has_resident(name: str) -> bool:
    """Whether a worker is one of many, which have something in common, to be imported once for all of them."""
    from workers.runtime.start import has_resident

    return has_resident(name)


def load_resident(name: str) -> None:
    """Import what such workers have in common.  For the child that forks them only."""
    from workers.runtime.start import load_resident

    load_resident(name)


def load_worker(name: str) -> Callable[[], int]:
    """The main function of a worker.  For the forked child only: spawnd itself imports no worker."""
    from workers.runtime.start import load

    return load(name)


def worker_command(name: str) -> tuple[str, ...]:
    """The command for a worker that must not inherit spawnd's memory."""
    return (*interpreter(), "-m", "workers.runtime", name)


def options_file(options: dict[str, Any]) -> int:
    """A memfd with a worker's options as JSON; the caller owns it.  Raises OSError."""
    return memfd(OPTIONS, json.dumps(options).encode())


class ForkServers:
    """Owns the fork servers, by the name of the worker."""

    def __init__(self, loop: Loop, children: Children) -> None:
        self._loop = loop
        self._children = children
        self._servers: dict[str, ForkServer | None] = {}  # None: of a worker of which there is one

    def takes(self, launch: Launch) -> bool:
        """Whether a launch is for a fork server rather than for a fork of spawnd's own."""
        return launch.worker and launch.ready is None and self._fork_server(launch.service.worker) is not None

    def fork(self, launch: Launch, our_end: int) -> int:
        """Have what `takes` takes forked, and return its pid; `our_end` is the socket's that the child reports on.

        Raises StepError.
        """
        fork_server = self._fork_server(launch.service.worker)
        assert fork_server is not None
        send_launch(our_end, launch)
        return fork_server.fork(launch.error_fd)

    def _fork_server(self, name: str) -> ForkServer | None:
        if name not in self._servers:
            self._servers[name] = self._make(name) if has_resident(name) else None
        return self._servers[name]

    def _make(self, name: str) -> ForkServer:
        return ForkServer(self._loop, self._children, lambda: ResidentProgram(name), stays=True)


class ResidentProgram:
    """The common part of the workers of one name, in their fork server.

    Signals are blocked there and stay so in the workers, which unblock them when they can hear them: one that
    is told to stop while it starts does what belongs to a stop.
    """

    def __init__(self, name: str) -> None:
        block_all()
        self._name = name
        load_resident(name)
        setproctitle.setproctitle(f"spawnd: fork server of {name}")

    def share(self, key: str, data: bytes) -> None:
        """Nothing but the module."""

    def run(self, fd: int) -> NoReturn:
        child.run(receive_launch(fd), lambda: load_worker(self._name), hears=False)
