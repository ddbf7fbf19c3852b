"""Workers of which there are many: one process is what they have in common, and forks each of them.

A page that spawnd writes to after it has forked a worker is that worker's own from then on, and spawnd writes all
the time.  This one, the nursery of such a worker, does nothing between two forks, and lives as long as spawnd does:
so the workers go on sharing what none of them has written to.
"""

from __future__ import annotations

from typing import NoReturn

import setproctitle

from supervisor.linux.signal_mask import block_all
from supervisor.loop.loop import Loop
from supervisor.manager.job import receive_job, send_job
from supervisor.manager.worker import has_family, load_family, load_worker
from supervisor.process import child
from supervisor.process.children import Children
from supervisor.process.launch import Launch
from supervisor.process.nursery import Nursery


class Families:
    """Owns the nurseries, by the name of the worker."""

    def __init__(self, loop: Loop, children: Children) -> None:
        self._loop = loop
        self._children = children
        self._nurseries: dict[str, Nursery | None] = {}  # None: of a worker of which there is one

    def takes(self, launch: Launch) -> bool:
        """Whether a launch is for a nursery rather than for a fork of spawnd's own."""
        return launch.worker and launch.ready is None and self._nursery(launch.service.worker) is not None

    def fork(self, launch: Launch, our_end: int) -> int:
        """Have what `takes` takes forked, and return its pid; `our_end` is the socket's that the child reports on.

        Raises StepError.
        """
        nursery = self._nursery(launch.service.worker)
        assert nursery is not None
        send_job(our_end, launch)
        return nursery.fork(launch.error_fd)

    def _nursery(self, name: str) -> Nursery | None:
        if name not in self._nurseries:
            self._nurseries[name] = self._make(name) if has_family(name) else None
        return self._nurseries[name]

    def _make(self, name: str) -> Nursery:
        return Nursery(self._loop, self._children, lambda: Family(name), stays=True)


class Family:
    """What the workers of one name have in common, in their nursery.

    Signals are blocked there and stay so in the workers, which unblock them when they can hear them: one that
    is told to stop while it starts does what belongs to a stop.
    """

    def __init__(self, name: str) -> None:
        block_all()
        self._name = name
        load_family(name)
        setproctitle.setproctitle(f"spawnd: nursery of {name}")

    def share(self, key: str, data: bytes) -> None:
        """Nothing but the module."""

    def run(self, fd: int) -> NoReturn:
        child.run(receive_job(fd), lambda: load_worker(self._name), hears=False)
