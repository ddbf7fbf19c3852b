"""The supervisor as a whole: definitions, units and control socket, from the first start to the last stop.

The control interface calls it the core.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial

from supervisor.changes.changeover import inspect, renew_unreachable
from supervisor.changes.changes import LOG_WORKER, Changes, has_log, log_reload
from supervisor.definitions.report import read_settings
from supervisor.definitions.service import Definitions, Slot
from supervisor.errors import DefinitionsError
from supervisor.lifecycle import machine
from supervisor.lifecycle.dependencies import blocks
from supervisor.lifecycle.life import Cause, State, is_down, runs
from supervisor.lifecycle.transaction import Outcome
from supervisor.log.logger import log, notice, set_level
from supervisor.log.output import WorkerOutputs
from supervisor.log.ring import START, Piece, Position
from supervisor.loop.loop import Loop, Timer
from supervisor.manager.host import HostFacts
from supervisor.manager.inspection import inspect_paths, marks_of, still_seen
from supervisor.manager.manager import Manager
from supervisor.manager.unit import Unit, summary
from supervisor.printable import count
from supervisor.process.children import Children, signal_name
from supervisor.process.leftovers import kill_descendants
from supervisor.process.paths import Sight
from supervisor.process.sockets import is_bound
from supervisor.state.state import Record
from supervisor.state.state import State as Saved
from supervisor.systemd.reports import Systemd
from supervisor.takeover.after_exec import inherited, rebuild_units
from supervisor.takeover.after_loss import TakeOver

ORPHANS_TIMEOUT = 2.0  # seconds for killed orphans to be gone
FORK_POLL = 0.005  # seconds until another look whether fork servers have no order left
KEPT_PAUSE = 1.0  # seconds from the end of all others until services whose stop has failed are stopped once more


class Shutdown:
    """Shutdown of all units of `manager`, from now on; calls `done` once when no process is left.

    Services that still keep things then, because their last process could not be started, are stopped once more:
    what it lacked may be there now that all others have ended.
    """

    def __init__(self, loop: Loop, manager: Manager, children: Children, done: Callable[[], None]) -> None:
        self._loop = loop
        self._manager = manager
        self._children = children
        self._done = done
        self._ended = False
        self._has_retried = False
        self._retry: Timer | None = None
        # a unit that ran at the last look: until it has stopped, no other needs a look
        self._awaited: Unit | None = None
        manager.shutting_down = True
        self._unobserve = manager.observe(self._look)
        manager.stop([unit.name for unit in manager.units.values() if not unit.internal], Cause.SHUTDOWN)
        self._look()

    def hurry(self) -> None:
        """Kill everything that still runs, when the shutdown is requested again."""
        self._has_retried = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._kill_all()
        self._look()

    def _kill_all(self) -> None:
        """Kill every process of every unit.

        Services whose turn to stop had not come are told to stop first. Their ends then do not count as
        failures, and nothing starts them again.
        """
        manager = self._manager
        for unit in [unit for unit in manager.units.values() if runs(unit.service, unit.life)]:
            manager.event(unit, machine.stop, Cause.SHUTDOWN)
            if runs(unit.service, unit.life):  # its process may have been given up before it was made
                manager.processes.kill(unit)

    def _look(self, _unit: Unit | None = None) -> None:
        """Stop the built-in services after the others; end when no service runs."""
        if self._awaited is not None and self._manager.goes_on(self._awaited):
            return
        running = [unit for unit in self._manager.units.values() if self._manager.goes_on(unit)]
        self._awaited = next((unit for unit in reversed(running) if not unit.internal), None)
        if self._awaited is not None:
            return
        if not self._has_retried and self._keeping():
            if self._retry is None:
                self._retry = self._loop.call_later(KEPT_PAUSE, self._stop_again)
        elif running:
            self._manager.stop([unit.name for unit in running], Cause.SHUTDOWN)
        else:
            self._end()

    def _keeping(self) -> list[str]:
        """Return the names of services whose stop has failed, once no other service runs."""
        units = self._manager.units.values()
        return [unit.name for unit in units if not unit.internal and not is_down(unit.life)]

    def _stop_again(self) -> None:
        self._has_retried, self._retry = True, None
        self._manager.stop(self._keeping(), Cause.SHUTDOWN)
        self._look()

    def _end(self) -> None:
        """Kill processes that escaped their service: spawnd, their subreaper, has inherited them."""
        if self._ended:
            return
        self._ended = True
        self._unobserve()
        self._await_orphans(self._loop.clock() + ORPHANS_TIMEOUT)

    def _await_orphans(self, deadline: float) -> None:
        if self._children.any_left():  # a look at all processes of the host takes as long as the rest of a stop
            kill_descendants()
            self._children.reap()
        if not self._children.any_left() or self._loop.clock() >= deadline:
            log.info("all services have stopped")
            self._done()
        else:
            self._loop.call_later(0.01, lambda: self._await_orphans(deadline))


class Supervisor:
    """`paths` are the definition files and folders, `level` is the log level of the command line or ''.

    `done` is called when the last service has stopped.
    """

    def __init__(
        self,
        loop: Loop,
        children: Children,
        host: HostFacts,
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
        self.reexec = reexec
        self._done = done
        self.manager = Manager(loop, children, host)
        self.side_calls = self.manager.processes.side_calls
        self.writer = self.manager.writer
        if systemd.address:
            self.manager.observe(lambda _unit: systemd.changed())
        systemd.describe = self.describe
        self.changes = Changes(self.manager, paths, level, systemd)
        self.when_ending: Callable[[], None] = lambda: None  # called before everything is told to stop
        self._shutdown: Shutdown | None = None

    # the core, as the control interface sees it

    @property
    def denied(self) -> str:
        return self._host.runtime.denied

    def inspect(self, name: str, done: Callable[[Mapping[Slot, Sight]], None]) -> None:
        unit = self.manager.units[name]
        inspect_paths(self._loop, self._children, marks_of([unit]), lambda sights: done(still_seen(unit, sights)))

    def writes_files(self, name: str) -> bool:
        from supervisor.manager.reopening import writes  # seldom needed

        return bool(writes(self.manager.units[name]))

    def reopen(self, name: str, done: Callable[[Outcome], None]) -> None:
        from supervisor.manager.reopening import Reopening

        Reopening(self.manager, self.manager.units[name], done)

    def end(self) -> None:
        if self._shutdown is None:
            self.shut_down()

    def output(self, name: str, position: Position = START) -> Piece | None:
        unit = self.manager.units.get(name)
        if unit is not None and not has_log(unit.service):
            raise LookupError(f"{name} has no log()")
        return self._host.outputs.since(name, position)

    # definitions

    def boot(self, result: Definitions | DefinitionsError, saved: Saved | None, pool: dict[str, int]) -> None:
        """Take over the services of an earlier spawnd, and start services by the definitions. Raises DefinitionsError.

        `saved` is the state that the earlier spawnd has written, `pool` has its descriptors by identity. If
        there are services to take over, wrong definitions are no error: the services keep the definitions
        that they have.
        """
        if isinstance(result, Definitions):
            self.changes.evaluations.kept = result.kept
        if saved is not None:
            self._take_over(result, saved, pool)
        elif isinstance(result, DefinitionsError):
            raise result
        else:
            self._start_first(result)
        self._host.runtime.sweep_notify_folders({unit.notify_path for unit in self.manager.units.values()})
        self.writer.flush()
        units = self.manager.units.values()
        self._host.runtime.sweep_answers({unit.name for unit in units if runs(unit.service, unit.life)})
        self._let_go_of_held()

    def _let_go_of_held(self) -> None:
        """Release processes that a killed reopening of files has left frozen or stopped."""
        if notes := self._host.runtime.notes():
            from supervisor.manager.reopening import let_go_of_all  # seldom needed

            let_go_of_all(self._loop, notes)

    def look_again(self) -> None:
        """Write the state to a run-time folder that was made anew, and bind the notification sockets there."""
        self.writer.look_again()
        for unit in self.manager.units.values():
            self._bind_again(unit)

    def find_removed(self, names: Set[str]) -> None:
        """Bind again, or report, sockets of services that may be among these removed files and folders."""
        for unit in self.manager.units.values():
            if unit.name in names or os.path.basename(os.path.dirname(unit.notify_path)) in names:
                self._bind_again(unit)

    def _bind_again(self, unit: Unit) -> None:
        if unit.receiver is not None:
            self.manager.processes.bind_receiver(unit)
        for path in (opened.spec.path for _slot, opened in unit.table if opened.inode is not None):
            if os.path.dirname(path) in self._host.runtime.socket_folders and not is_bound(path):
                text = "%s: its socket %s was removed; `spawnctl restart %s` makes it again"
                log.warning(text, unit.name, path, unit.name)

    def saved(self) -> Record:
        """Return the work in progress that no unit's record holds, for `rebuild` after the exec."""
        outputs = self._host.outputs
        feed = outputs.saved_feed() if isinstance(outputs, WorkerOutputs) else None
        return {
            **self.manager.under_way(),
            "reload": self.changes.reload_is_due,
            "feed": feed,
            "feed_queue": outputs.feed_queue if isinstance(outputs, WorkerOutputs) else [],
        }

    def rebuild(self, state: Saved, saved: Record) -> None:
        """Restore the state from before the exec; nothing is started or signalled yet."""
        manager, outputs = self.manager, self._host.outputs
        manager.settings = read_settings(state.settings)
        rebuild_units(manager, state)
        if isinstance(outputs, WorkerOutputs):
            if saved["feed"] is not None:
                outputs.resume_feed(inherited(saved["feed"]), saved["feed_queue"])
            if LOG_WORKER in manager.units:
                manager.units[LOG_WORKER].feed = outputs.feed
        set_level(self._level or manager.settings.log_level)
        gc.freeze()

    def activate(self, saved: Record) -> None:
        """Resume work after `rebuild`, just before the loop runs."""
        manager = self.manager
        self.writer.begin_soon()
        manager.activate(saved)
        self._let_go_of_held()
        for name in saved["reloads"]:
            self.side_calls.reload(name, partial(log_reload, name))
        if saved["reload"]:
            self.changes.reload()

    def hold(self, quiet: Callable[[], None]) -> None:
        """Begin no evaluation until `release`, and call back once no work is under way that an exec would lose."""
        def when_quiet() -> None:
            """Wait for fork servers as well: the next program would not know the process that one makes."""
            if self.side_calls.is_forking:
                self._loop.call_later(FORK_POLL, lambda: self.side_calls.when_quiet(when_quiet))
            else:
                quiet()

        self.changes.evaluations.hold(lambda: self.side_calls.when_quiet(when_quiet))

    def _take_over(self, result: Definitions | DefinitionsError, saved: Saved, pool: dict[str, int]) -> None:
        manager = self.manager
        manager.settings = saved.settings_in_force()
        self.writer.is_unsettled = saved.ending
        set_level(self._level or manager.settings.log_level)
        TakeOver(manager, saved, pool).run()
        log_unit = manager.units.get(LOG_WORKER)
        if log_unit is not None and isinstance(self._host.outputs, WorkerOutputs):
            # a running worker keeps its streams; only a new one can be given new streams
            log_unit.feed = self._host.outputs.feed
            manager.renew([LOG_WORKER], Cause.RESTART)
        self.changes.change_to(result)
        self._order_stops_again()
        inspect(manager, partial(renew_unreachable, manager))
        if saved.ending:
            self._settle()
            self.writer.is_unsettled = False
            self.writer.renew()

    def _order_stops_again(self) -> None:
        """Order the stops that are due and whose turn had not come: orders of a spawnd are lost with it."""
        manager, units = self.manager, self.manager.units
        manager.stop([unit.name for unit in units.values() if unit.removed], Cause.REMOVED)
        for name in [unit.name for unit in units.values() if unit.life.state is State.WAITING]:
            rivals = sorted(manager.conflicts.get(name, ()))
            manager.stop((each for each in rivals if each in units and blocks(units[each].life)), Cause.CONFLICT, name)

    def _start_first(self, definitions: Definitions) -> None:
        manager = self.manager
        manager.settings = definitions.settings
        manager.sources.learn(definitions)
        for service in self.changes.effective(definitions).services.values():
            manager.add(service)
        manager.index()
        self.changes.changed(definitions, definitions.notices)
        for unit in manager.units.values():
            if not unit.service.autostart:
                notice("Not running %s", unit.name)
        self._settle()
        self.writer.begin()  # no sooner: the next spawnd does not start services that are written down as stopped

    def _settle(self) -> None:
        self.manager.settle([unit.name for unit in self.manager.units.values() if unit.service.autostart])

    # signals

    def realtime(self, signum: int) -> None:
        """Restart the services with this restart_signal, except those that were stopped."""
        units = [unit for unit in self.manager.units.values() if unit.service.restart_signal == signum]
        if not units:
            notice("signal %s: no service has it as its restart_signal", signal_name(signum))
        for unit in units:
            notice("signal %s: restarts %s unless it was stopped", signal_name(signum), unit.name)
            self.manager.renew([unit.name], Cause.SIGNAL)

    def log_states(self) -> None:
        """Write the state of every service to the log."""
        for unit in self.manager.units.values():
            life = unit.life
            seconds = self._loop.clock() - life.since
            pid = f", pid {unit.pid}" if unit.pid is not None else ""
            notice("%s: %s for %.0f s%s: %s", unit.name, life.state.value, seconds, pid, unit.waits or life.reason)

    def describe(self) -> str:
        """Return a line about the state of all services."""
        units = [unit for unit in self.manager.units.values() if not unit.internal and not unit.removed]
        text = summary((unit.name, unit.life.state) for unit in units)
        problem = self.changes.problem
        return f"{problem}; {text}" if problem else text

    def shut_down(self) -> None:
        """Stop all services, dependants first, then call `done`. A second call kills what still runs."""
        if self._shutdown is not None:
            notice("told to stop once more: killing what still runs")
            self._shutdown.hurry()
            return
        notice("stopping %s", count(len(self.manager.units), "service"))
        self._systemd.stopping()
        if self._host.scope is not None:
            self._host.scope.release()
        self.writer.end_watch()
        self.when_ending()
        self._shutdown = Shutdown(self._loop, self.manager, self._children, self._stopped)

    def _stopped(self) -> None:
        """Finish after the last service has stopped."""
        self.writer.end()
        if self._host.scope is not None:
            self._host.scope.close(self._done)
        else:
            # after everything that is due now, so that clients hear of the last changes
            self._loop.call_later(0, self._done)
