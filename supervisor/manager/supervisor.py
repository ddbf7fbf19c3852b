"""The supervisor as a whole: definitions, units, control socket, from the first start to the last stop.

It is what the control interface calls the core.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from supervisor.definitions.report import read_settings
from supervisor.definitions.service import Definitions, Service, Settings
from supervisor.errors import DefinitionsError
from supervisor.lifecycle.life import Cause
from supervisor.log.logger import notice, set_level
from supervisor.log.output import WorkerOutputs
from supervisor.log.ring import START, Piece, Position
from supervisor.loop.loop import Loop
from supervisor.manager.changes import Changes, CheckDone, PlanDone, log_reload
from supervisor.manager.launcher import Host
from supervisor.manager.log_worker import LOG_WORKER, has_log
from supervisor.manager.manager import Manager
from supervisor.manager.resume import inherited, resume_units
from supervisor.manager.shutdown import Shutdown
from supervisor.manager.summary import summary
from supervisor.manager.systemd import Systemd
from supervisor.manager.takeover import TakeOver
from supervisor.manager.unit import Unit
from supervisor.process.answer import Answer
from supervisor.process.children import Children, signal_name
from supervisor.state.file import Record
from supervisor.state.state import State as Kept


class Supervisor:
    """`paths` are the definition files and folders, `level` the log level of the command line, '' where none.

    `done` is called when the last service has stopped.
    """

    def __init__(
        self,
        loop: Loop,
        children: Children,
        host: Host,
        paths: Sequence[str],
        level: str,
        systemd: Systemd,
        reexec: Callable[[Callable[[str], None]], None],
        done: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._children = children
        self._host = host
        self._level = level
        self._systemd = systemd
        self._reexec = reexec
        self._done = done
        self._manager = Manager(loop, children, host)
        self._manager.observe(lambda _unit: systemd.changed())
        systemd.describe = self.describe
        self._changes = Changes(self._manager, paths, level, systemd)
        self._shutdown: Shutdown | None = None

    # the core, as the control interface sees it

    @property
    def units(self) -> Mapping[str, Unit]:
        return self._manager.units

    @property
    def settings(self) -> Settings:
        return self._manager.settings

    def start(self, names: Sequence[str]) -> None:
        self._manager.start(names)

    def stop(self, names: Sequence[str]) -> None:
        self._manager.stop(names)

    def restart(self, names: Sequence[str]) -> None:
        self._manager.restart(names)

    def reset(self, names: Sequence[str]) -> None:
        self._manager.reset(names)

    def reload(self, name: str, done: Callable[[str], None]) -> None:
        self._manager.reload(name, done)

    def ask_status(self, name: str, done: Callable[[Answer], None]) -> None:
        self._manager.ask_status(name, done)

    def signal(self, name: str, signum: int) -> bool:
        return self._manager.signal(name, signum)

    def observe(self, callback: Callable[[Unit], None]) -> Callable[[], None]:
        return self._manager.observe(callback)

    def wall(self, monotonic: float) -> float:
        return self._manager.wall(monotonic)

    def settle(self) -> None:
        self._manager.keeper.flush()

    def reexec(self, done: Callable[[str], None]) -> None:
        self._reexec(done)

    def end(self) -> None:
        if self._shutdown is None:
            self.shut_down()

    def services(self) -> Mapping[str, Service]:
        return self._manager.services()

    def check(self, done: CheckDone) -> None:
        self._changes.check(done)

    def plan(self, reloads: bool, done: PlanDone) -> None:
        self._changes.plan(reloads, done)

    def apply(self, expect: str, reloads: bool, done: PlanDone) -> None:
        self._changes.apply(expect, reloads, done)

    def output(self, name: str, position: Position = START) -> Piece | None:
        unit = self._manager.units.get(name)
        if unit is not None and not has_log(unit.service):
            raise LookupError(f"{name} has no log()")
        return self._host.outputs.since(name, position)

    # definitions

    def boot(self, result: Definitions | DefinitionsError, kept: Kept | None, pool: dict[str, int]) -> None:
        """Take over what an earlier spawnd left, and start what the definitions say.  Raises DefinitionsError.

        `kept` is what that one has written down, `pool` are descriptors that it had, by
        identity.  With services to be taken over, wrong definitions are no reason to leave
        those alone: the ones that they have are good.
        """
        if kept is not None:
            self._take_over(result, kept, pool)
        elif isinstance(result, DefinitionsError):
            raise result
        else:
            self._start_first(result)

    def kept(self) -> Record:
        """What is under way and in no unit's record, for `resume` in this process's next life."""
        outputs = self._host.outputs
        feed = outputs.kept_feed() if isinstance(outputs, WorkerOutputs) else None
        return {
            **self._manager.under_way(),
            "reload": self._changes.reload_is_due,
            "feed": feed,
            "feed_queue": outputs.feed_queue if isinstance(outputs, WorkerOutputs) else [],
        }

    def resume(self, state: Kept, kept: Record) -> None:
        """Be what this process was before it executed itself anew; nothing is done yet."""
        manager, outputs = self._manager, self._host.outputs
        manager.settings = read_settings(state.settings)
        resume_units(manager, state)
        if isinstance(outputs, WorkerOutputs):
            if kept["feed"] is not None:
                outputs.resume_feed(inherited(kept["feed"]), kept["feed_queue"])
            if LOG_WORKER in manager.units:
                manager.units[LOG_WORKER].feed = outputs.feed
        set_level(self._level or manager.settings.log_level)
        gc.freeze()

    def go_on(self, kept: Record) -> None:
        """After `resume`, and when the loop is about to run: act again."""
        manager = self._manager
        manager.keeper.begin()
        manager.go_on(kept)
        for name in kept["reloads"]:
            manager.reload(name, partial(log_reload, name))
        if kept["reload"]:
            self.reload_definitions()

    def everything(self) -> list[Record]:
        """All records of the state, as they are now."""
        return list(self._manager.keeper.everything())

    @property
    def ending(self) -> bool:
        return self._manager.shutting_down

    def hold(self, quiet: Callable[[], None]) -> None:
        """Evaluate nothing any more and call back when nothing is under way that would be lost, until `release`."""
        self._changes.evaluations.hold(lambda: self._manager.when_quiet(quiet))

    def release(self) -> None:
        """Go on evaluating, with what was asked for meanwhile first."""
        self._changes.evaluations.release()

    def _take_over(self, result: Definitions | DefinitionsError, kept: Kept, pool: dict[str, int]) -> None:
        manager = self._manager
        manager.settings = kept.settings_in_force()
        set_level(self._level or manager.settings.log_level)
        TakeOver(manager, kept, pool).run()
        manager.keeper.begin()
        log_unit = manager.units.get(LOG_WORKER)
        if log_unit is not None and isinstance(self._host.outputs, WorkerOutputs):
            # it goes on with what it has; only a new one can be told of new streams
            log_unit.feed = self._host.outputs.feed
            manager.renew([LOG_WORKER], Cause.RESTART)
        self._changes.change_to(result)
        if kept.ending:
            manager.start([unit.name for unit in manager.units.values() if unit.service.autostart])

    def _start_first(self, definitions: Definitions) -> None:
        manager = self._manager
        manager.settings = definitions.settings
        manager.texts.learn(definitions)
        for service in self._changes.effective(definitions).services.values():
            manager.add(service)
        manager.index()
        manager.keeper.begin()
        self._changes.changed(definitions)
        for unit in manager.units.values():
            if not unit.service.autostart:
                notice("Not running %s", unit.name)
        manager.start([unit.name for unit in manager.units.values() if unit.service.autostart])

    def reload_definitions(self) -> None:
        """Evaluate the definitions anew and change to them; asked again meanwhile, once more afterwards."""
        self._changes.reload()

    # signals

    def realtime(self, signum: int) -> None:
        """Restart the services whose restart_signal this is, but for those that somebody stopped."""
        units = [unit for unit in self._manager.units.values() if unit.service.restart_signal == signum]
        if not units:
            notice("signal %s: no service has it as its restart_signal", signal_name(signum))
        for unit in units:
            notice("signal %s: restarts %s unless it was stopped", signal_name(signum), unit.name)
            self._manager.renew([unit.name], Cause.SIGNAL)

    def log_states(self) -> None:
        """Write the state of every service to the log."""
        for unit in self._manager.units.values():
            life = unit.life
            seconds = self._loop.clock() - life.since
            pid = f", pid {unit.pid}" if unit.pid is not None else ""
            notice("%s: %s for %.0f s%s: %s", unit.name, life.state.value, seconds, pid, unit.waits or life.reason)

    def describe(self) -> str:
        """How all services stand, in one line."""
        units = [unit for unit in self._manager.units.values() if not unit.internal and not unit.removed]
        text = summary((unit.name, unit.life.state) for unit in units)
        problem = self._changes.problem
        return f"{problem}; {text}" if problem else text

    def shut_down(self) -> None:
        """Stop everything, what comes after others first; then `done`.  The second time kill what still runs."""
        if self._shutdown is not None:
            notice("told to stop once more: killing what still runs")
            self._shutdown.hurry()
            return
        notice("stopping %d services", len(self._manager.units))
        self._systemd.stopping()
        if self._host.scope is not None:
            self._host.scope.release()
        self._shutdown = Shutdown(self._loop, self._manager, self._children, self._stopped)

    def _stopped(self) -> None:
        """No service has a process any more."""
        self._manager.keeper.end()
        if self._host.scope is not None:
            self._host.scope.close(self._done)
        else:
            self._done()
