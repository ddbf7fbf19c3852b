"""The log worker, which is built in: it is there from the first service on whose output it is to keep."""

from __future__ import annotations

import os
from collections.abc import Mapping

from supervisor.definitions.service import Backoff, Service
from supervisor.log.output import WorkerOutputs
from supervisor.manager.manager import Manager

LOG_WORKER = "log"


class LogWorker:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def needed_for(self, services: Mapping[str, Service]) -> str | None:
        """Which of the services it has to be started for; None: it is there, or nobody needs it."""
        if LOG_WORKER in self._manager.units or not isinstance(self._manager.host.outputs, WorkerOutputs):
            return None
        return next((name for name, service in services.items() if has_log(service)), None)

    def start_if_needed(self) -> None:
        manager, outputs = self._manager, self._manager.host.outputs
        if self.needed_for(manager.services()) is not None and isinstance(outputs, WorkerOutputs):
            manager.add(log_worker(), internal=True).feed = outputs.feed
            manager.index()
            manager.start([LOG_WORKER])


def has_log(service: Service) -> bool:
    """Whether some of its output is kept; that of functions always is."""
    return bool(service.functions) or "log" in (service.stdout.kind, service.stderr.kind)


def log_worker() -> Service:
    """Its definition: it comes back for ever, and soon."""
    return Service(
        LOG_WORKER,
        description="keeps and passes on the output of services",
        worker="log",
        user="root",
        group="root",
        uid=os.geteuid(),
        gid=os.getegid(),
        healthy_after=0.1,
        start_limit=None,
        backoff=Backoff(max=1.0),
    )
