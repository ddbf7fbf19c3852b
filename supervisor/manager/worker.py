"""Starting a built-in worker: in a forked child, or in a new interpreter for a worker that is not root.

A worker that runs in many copies has a fork server. Pages that spawnd writes to after a fork are no longer
shared with the child, and spawnd writes all the time. A fork server does nothing between two forks and lives
as long as spawnd, so its workers continue to share all pages that none of them writes to.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

import setproctitle

from supervisor.linux.descriptors import memfd
from supervisor.linux.signal_mask import block_all
from supervisor.loop.loop import Loop
from supervisor.origin import interpreter
from supervisor.process import child
from supervisor.process.children import Children
from supervisor.process.fork_server import Done, ForkServer
from supervisor.process.launch import Launch

OPTIONS = "options"  # name of the descriptor with a worker's options


def load_shared(name: str) -> None:
    """Import, in spawnd before the fork, the modules that each process of a worker would import anew.

    A worker names them in its module `shared`, if any. Raises the errors of that module.
    """
    from workers.runtime.start import load_shared

    load_shared(name)


def has_resident(name: str) -> bool:
    """Whether a worker has a module `resident`, with what its many copies import in common."""
    from workers.runtime.start import has_resident

    return has_resident(name)


def load_resident(name: str) -> None:
    """Import the common modules of such workers. For their fork server only."""
    from workers.runtime.start import load_resident

    load_resident(name)


def load_worker(name: str) -> Callable[[], int]:
    """Return the main function of a worker. For the forked child only: spawnd itself imports no worker."""
    from workers.runtime.start import load

    return load(name)


def worker_command(name: str) -> tuple[str, ...]:
    """Return the command for a worker that must not inherit spawnd's memory."""
    return (*interpreter(), "-m", "spawn_supervisor.worker", name)


def options_file(options: dict[str, Any]) -> int:
    """Return a memfd with a worker's options as JSON; the caller owns it. Raises OSError."""
    return memfd(OPTIONS, json.dumps(options).encode())


class ForkServers:
    """Owner of the fork servers, by worker."""

    def __init__(self, loop: Loop, children: Children) -> None:
        self._loop = loop
        self._children = children
        self._servers: dict[str, ForkServer | None] = {}  # None for a worker without a fork server

    def takes(self, launch: Launch) -> bool:
        """Whether a launch goes to a fork server rather than to a fork of spawnd itself."""
        return launch.worker and launch.ready is None and self._fork_server(launch.service.worker) is not None

    @property
    def are_busy(self) -> bool:
        """Whether a fork is under way."""
        return any(server is not None and server.is_busy for server in self._servers.values())

    def fork(self, launch: Launch, our_end: int, done: Done) -> None:
        """Have a launch forked that `takes` accepts; the loop calls `done`. Raises StepError.

        `our_end` is spawnd's end of the socket pair on which the child reports.
        """
        fork_server = self._fork_server(launch.service.worker)
        assert fork_server is not None
        child.send_plan(our_end, launch, hears=False)
        fork_server.fork(launch.error_fd, done)

    def _fork_server(self, name: str) -> ForkServer | None:
        if name not in self._servers:
            self._servers[name] = self._make(name) if has_resident(name) else None
        return self._servers[name]

    def _make(self, name: str) -> ForkServer:
        return ForkServer(self._loop, self._children, lambda: ResidentProgram(name), stays=True)


class ResidentProgram:
    """The program of a fork server: the common part of the workers of one name.

    Signals are blocked in the fork server and in its workers, which unblock them once they can handle them. A
    worker that is told to stop while it starts therefore stops in an orderly way.
    """

    def __init__(self, name: str) -> None:
        block_all()
        self._name = name
        load_resident(name)
        setproctitle.setproctitle(f"spawnd: fork server of {name}")

    def share(self, key: str, data: bytes) -> None:
        """Do nothing: these workers share modules only."""

    def run_child(self, fd: int) -> NoReturn:
        child.become_worker(child.receive_plan(fd), fd, lambda: load_worker(self._name))
