"""The definition files of a running supervisor: checking them, planning the change to them, and changing."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from supervisor.changes.changeover import carry_out, inspect, plan
from supervisor.changes.evaluation import Evaluations
from supervisor.definitions.service import CONTROL, Backoff, Definitions, Descriptor, Service
from supervisor.errors import DefinitionsError, OtherDefinitionsError, SpawnError
from supervisor.lifecycle.plan import Effect, Plan, ServicePlan
from supervisor.log.logger import log, notice, set_level
from supervisor.log.output import WorkerOutputs
from supervisor.manager.manager import Manager
from supervisor.manager.runtime import RuntimeFolder
from supervisor.printable import count
from supervisor.systemd.reports import Systemd

LOG_WORKER = "log"
COLLECTED = 0.05  # seconds after a change of the definitions: clients are answered first
CheckDone = Callable[[int, list[str], Sequence[str]], None]
PlanDone = Callable[[Plan | SpawnError], None]


def _collect() -> None:
    """Collect the old definitions."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class Changes:
    """`paths` are the definition files and folders, `level` is the log level of the command line or ''.

    `problem` says briefly why the last change of the definitions failed.
    """

    def __init__(self, manager: Manager, paths: Sequence[str], level: str, systemd: Systemd) -> None:
        self.problem = ""
        look = partial(inspect, manager)
        self.evaluations = Evaluations(manager.loop, manager.children, paths, look, manager.services)
        self._manager = manager
        self._level = level
        self._systemd = systemd
        self._log_worker = LogWorker(manager)

    def check(self, done: CheckDone) -> None:
        """Evaluate the files: `done(number of services, problems, notices)`."""

        def report(result: Definitions | DefinitionsError) -> None:
            if isinstance(result, DefinitionsError):
                done(0, result.problems, ())
            else:
                done(len(result.services), [], result.notices)

        self.evaluations.ask(report)

    def plan(self, reloads: bool, done: PlanDone) -> None:
        """Evaluate the files, and plan the change to them."""

        def report(result: Definitions | DefinitionsError) -> None:
            done(result if isinstance(result, DefinitionsError) else self._plan(result, reloads))

        self.evaluations.ask(report)

    def apply(self, expect: str, reloads: bool, done: PlanDone) -> None:
        """Change to the files: `done` gets the plan, after all of its steps but the reloads have begun."""

        def change(result: Definitions | DefinitionsError) -> None:
            try:
                made = self._change(result, expect, reloads)
            except SpawnError as error:
                log.error("%s", self.problem if isinstance(error, DefinitionsError) else error)
                done(error)
            else:
                done(made)

        self.evaluations.ask(change)

    def reload(self) -> None:
        """Change to the files, and have services reload as well.

        A request meanwhile causes another change afterwards.
        """
        if self._manager.shutting_down:
            return
        if not self.reload_is_due:
            self._systemd.reloading()
        log.info("reloading definitions")
        self.evaluations.ask(self._reloaded)

    @property
    def reload_is_due(self) -> bool:
        """Whether a requested reload has not been done yet."""
        return self.evaluations.is_awaited_by(self._reloaded)

    def change_to(self, result: Definitions | DefinitionsError, reloads: bool = False) -> None:
        """Change to these definitions, or log why that failed."""
        try:
            made = self._change(result, "", reloads)
        except DefinitionsError as error:
            for problem in error.problems:
                log.error("%s", problem)
            log.error("%s", self.problem)
            return
        for entry in made.services.values():
            if entry.reloads:
                self._manager.processes.side_calls.reload(entry.name, partial(log_reload, entry.name))

    def effective(self, definitions: Definitions) -> Definitions:
        """Return the definitions with spawnd's additions."""
        runtime = self._manager.host.runtime
        services = {name: _with_control(service, runtime) for name, service in definitions.services.items()}
        return replace(definitions, services=services)

    def changed(self, definitions: Definitions, notices: Iterable[str]) -> None:
        """Apply the consequences of new definitions besides the services."""
        for line in notices:
            notice("%s", line)
        set_level(self._level or definitions.settings.log_level)
        if self._manager.host.subtree is None:
            for service in definitions.services.values():
                if service.resources:
                    text = "%s: not enforced without a delegated cgroup: %s"
                    log.warning(text, service.name, ", ".join(service.resources))
                if service.has_session_cgroups:
                    log.warning("%s: cannot start without a delegated cgroup: accept.session_cgroup", service.name)
        self._log_worker.start_if_needed()
        # frozen objects are not traversed, and so not copied, in each child
        gc.freeze()

    def _plan(self, definitions: Definitions, reloads: bool) -> Plan:
        effective = self.effective(definitions)
        if self._level and definitions.settings.log_level != self._manager.settings.log_level:
            text = f"_SUPERVISOR.log_level has no effect: spawnd was started with --log-level {self._level}"
            effective = replace(effective, notices=(*effective.notices, text))
        made = plan(self._manager, effective, reloads, self.evaluations.sights)
        if (name := self._log_worker.needed_for(effective.services)) is not None:
            entry = ServicePlan(LOG_WORKER, None, log_worker(), (), Effect.START, f"{name} has log()", internal=True)
            made.services[LOG_WORKER] = entry
        return made

    def _change(self, result: Definitions | DefinitionsError, expect: str, reloads: bool) -> Plan:
        """Change to these definitions; return the plan, after all of its steps but the reloads have begun.

        Raises SpawnError.
        """
        if self._manager.shutting_down:
            raise SpawnError("definitions not changed: spawnd is shutting down")
        if isinstance(result, Definitions) and expect not in ("", result.digest):
            raise OtherDefinitionsError(result.digest)
        try:
            if isinstance(result, DefinitionsError):
                raise result
            made = self._plan(result, reloads)
            if "cgroup" in made.settings:
                notice("_SUPERVISOR.cgroup has changed: that takes effect at the next start of spawnd")
            carry_out(self._manager, made, self.evaluations.sights)
        except DefinitionsError as error:
            self.problem = f"definitions not changed: {count(len(error.problems), 'problem')}"
            raise
        finally:
            self._systemd.changed()
        self.problem = ""
        self._manager.loop.call_later(COLLECTED, _collect)
        self.changed(made.definitions, made.notices())
        log.info("definitions reloaded: %s", count(len(made.definitions.services), "service"))
        return made

    def _reloaded(self, result: Definitions | DefinitionsError) -> None:
        if self._manager.shutting_down:
            return
        try:
            self.change_to(result, reloads=True)
        finally:
            self._systemd.ready()
            if self.reload_is_due:
                self._systemd.reloading()  # another reload was requested meanwhile


def _with_control(service: Service, runtime: RuntimeFolder) -> Service:
    """Return the service with its control socket after its own descriptors."""
    if not service.control:
        return service
    path = runtime.control_path(service.name)
    return replace(service, fd=(*service.fd, Descriptor("stream", name=CONTROL, path=path, mode=0o600)))


def log_reload(name: str, problem: str) -> None:
    """Log the result of a service's reload."""
    if problem:
        log.warning("%s: not reloaded: %s", name, problem)
    else:
        log.info("%s: asked to reload", name)


class LogWorker:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def needed_for(self, services: Mapping[str, Service]) -> str | None:
        """Return a service that needs the log worker; None if the worker runs, or no service needs it."""
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
    """Whether output of a service is kept; that of functions always is."""
    return bool(service.functions) or "log" in (service.stdout.kind, service.stderr.kind)


def log_worker() -> Service:
    """Return the definition of the log worker, which is restarted for ever, and soon."""
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
