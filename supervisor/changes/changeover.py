"""Changing to new definitions while services run: all or nothing, with the least effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.definitions.service import Change, Definitions, Descriptor, Service, Slot
from supervisor.errors import DefinitionsError
from supervisor.lifecycle.life import RUNS, UP, Cause, State
from supervisor.lifecycle.plan import Plan, make_plan
from supervisor.log.logger import log, notice
from supervisor.manager.inspection import Sights, inspect_paths, marks_of, open_successor, still_seen
from supervisor.manager.manager import WITHOUT_PROCESS, Manager
from supervisor.manager.unit import Unit
from supervisor.notify.safe_close import Closer
from supervisor.process.failure import failure_of
from supervisor.process.files import rights_of
from supervisor.process.held_descriptors import UNIX, Opened, close_all, open_local, wanted
from supervisor.process.network_namespace import namespace_of_name
from supervisor.process.paths import Sight

READ = frozenset({"r", "r+"})  # access to files that have to exist
NOTHING_SEEN: Sights = {}


@dataclass(slots=True)
class Prepared:
    """Descriptors that were opened before any change, by service and slot.

    Owns `opened`. `moved` are entries of other units' tables, as unit and slot: a unit gives them up once the
    definitions are sure to change.
    """

    opened: dict[str, dict[Slot, Opened]] = field(default_factory=dict)
    moved: dict[str, dict[Slot, tuple[Unit, Slot]]] = field(default_factory=dict)

    def take(self, name: str) -> dict[Slot, Opened]:
        """Return all descriptors for a service; the caller owns them."""
        opened = self.opened.pop(name, {})
        for slot, (unit, old) in self.moved.pop(name, {}).items():
            opened[slot] = unit.table.give(old)
        return opened

    def close(self, closer: Closer) -> None:
        for opened in self.opened.values():
            close_all(opened, closer)


def inspect(manager: Manager, done: Callable[[Sights], None]) -> None:
    """Inspect the paths of all open descriptors of the services."""
    inspect_paths(manager.loop, manager.children, marks_of(manager.units.values()), done)


def plan(
    manager: Manager, definitions: Definitions, reloads: bool = False, sights: Sights = NOTHING_SEEN
) -> Plan:
    """Return the plan for the change to these definitions; changes nothing. `reloads` as in `make_plan`."""
    standing = manager.standing()
    defined = [name for name, unit in manager.units.items() if not unit.internal and not unit.removed]
    old = Definitions({name: standing.services[name] for name in defined}, manager.settings)
    lives = {name: life for name, life in standing.lives.items() if not manager.units[name].internal}
    moved = {name: why for name in defined if (why := _why_renewed(manager.units[name], definitions, sights))}
    return make_plan(old, lives, standing.stopping, definitions, reloads, moved)


def carry_out(manager: Manager, plan: Plan, sights: Sights = NOTHING_SEEN) -> None:
    """Carry out a plan that was just made.

    If a descriptor cannot be opened, raise DefinitionsError and change nothing.
    """
    prepared = _prepare(manager, plan)
    try:
        _open_anew(manager, plan, sights, prepared)
        with manager.writer.change():
            _apply(manager, plan, prepared)
    finally:
        prepared.close(manager.host.closer)


def renew_unreachable(manager: Manager, sights: Sights) -> None:
    """Restart services whose sockets clients cannot reach: a lost spawnd may have bound new ones for them."""
    for name, unit in list(manager.units.items()):
        opened = dict(unit.table)
        seen = {slot: sight for slot, sight in still_seen(unit, sights).items() if opened[slot].spec.kind in UNIX}
        lost = [f"{opened[slot].spec.path} was {sight}" for slot, sight in seen.items() if sight.has_room]
        if lost and unit.life.state in UP:
            manager.renew([name], Cause.DEFINITION, ", ".join(lost))


def _why_renewed(unit: Unit, definitions: Definitions, sights: Sights) -> str:
    """Return why a running process has to be replaced to get the files now at its paths; '' without a reason."""
    if unit.name not in definitions.services or unit.life.state not in RUNS:
        return ""
    opened = dict(unit.table)
    seen = still_seen(unit, sights)
    found = [f"{opened[slot].spec.path} was {sight}" for slot, sight in seen.items() if _counts(opened[slot], sight)]
    return ", ".join(found)


def _counts(opened: Opened, sight: Sight) -> bool:
    """Whether a running process needs the new file: its socket is unreachable, or the content it reads is outdated.

    A moved log does not count: logs are moved all the time.
    """
    if opened.spec.kind == "file":
        return opened.spec.access in READ and sight is Sight.REPLACED
    return sight.has_room


def _open_anew(manager: Manager, plan: Plan, sights: Sights, prepared: Prepared) -> None:
    """Open renewed descriptors: for the successors of processes that are replaced, and in place for other services."""
    is_local = manager.host.closer.file_systems.have
    for name, unit in [(name, manager.units[name]) for name in sights if name in manager.units]:
        seen = still_seen(unit, sights)
        if unit.life.state in WITHOUT_PROCESS:
            manager.sleepers.open_anew(unit, seen)
            continue
        kept = [
            f"{opened.spec.kind} {opened.spec.path!r} was {seen[slot]}; the old socket stays"
            for slot, opened in unit.table
            if slot in seen and not seen[slot].has_room
        ]
        if kept:
            unit.stale = "; ".join(kept)
            log.warning("%s: %s", name, unit.stale)
            manager.touch(unit)
        slots = [slot for slot, opened in unit.table if slot in seen and _counts(opened, seen[slot])]
        if name in plan.transaction.up and name in plan.definitions.services:
            specs = wanted(plan.definitions.services[name])
            rights = rights_of(plan.definitions.services[name])
            for slot in slots:
                open_successor(name, slot, specs.get(slot), rights, prepared.opened.setdefault(name, {}), is_local)


def _prepare(manager: Manager, plan: Plan) -> Prepared:
    """Open the missing descriptors of services that will run, to detect a busy port before anything is stopped."""
    prepared = Prepared()
    problems = []
    held: _Held | None = None  # takes a look at all descriptors
    for name in plan.transaction.up:
        if not _opens(manager, plan, name):
            continue
        service = plan.definitions.services[name]
        held = held or _Held(manager, plan.definitions)
        missing = held.claim(manager.units.get(name), service, prepared)
        try:
            prepared.opened[name] = open_local(missing, manager.host.closer, rights_of(service))
        except Exception as error:
            problems.append(f"{service.file}:{service.line}: {name}: {failure_of(error)}")
    if problems:
        prepared.close(manager.host.closer)
        raise DefinitionsError(problems)
    return prepared


def _opens(manager: Manager, plan: Plan, name: str) -> bool:
    """Whether to open the descriptors of a service before any change; not for another attempt of the same start.

    Otherwise a service that failed for lack of a descriptor would block all other changes.
    """
    unit = manager.units.get(name)
    if unit is None or unit.life.state not in (State.FAILED, State.BACKOFF):
        return True
    return plan.kinds.get(name) is Change.REBUILD or bool(plan.transaction.up[name].needed_by)


class _Held:
    """The open descriptors, and those that no service wants after the change."""

    def __init__(self, manager: Manager, definitions: Definitions) -> None:
        self._addresses: set[tuple[object, ...]] = set()
        self._spare: list[tuple[Descriptor, Unit, Slot]] = []
        for name, unit in manager.units.items():
            stays = list(wanted(definitions.services[name]).values()) if name in definitions.services else []
            pending = unit.pending.opened if unit.pending is not None else {}
            self._addresses |= {opened.spec.address() for opened in pending.values()}
            for slot, opened in unit.table:
                self._addresses.add(opened.spec.address())
                if opened.spec in stays:
                    stays.remove(opened.spec)
                else:
                    self._spare.append((opened.spec, unit, slot))

    def claim(self, unit: Unit | None, service: Service, prepared: Prepared) -> dict[Slot, Descriptor]:
        """Return the descriptors to open for a service; move those to it that others give up.

        A descriptor that another service holds has to wait until that service releases it. A file that would
        be truncated, and a socket in a missing network namespace, wait until the service starts.
        """
        have = [opened.spec for _slot, opened in unit.table] if unit is not None else []
        if unit is not None and unit.pending is not None:
            have += [opened.spec for opened in unit.pending.opened.values()]
        missing = {}
        for slot, spec in wanted(service).items():
            if spec in have:
                have.remove(spec)
            elif (spare := next((entry for entry in self._spare if entry[0] == spec), None)) is not None:
                self._spare.remove(spare)
                prepared.moved.setdefault(service.name, {})[slot] = spare[1:]
            elif spec.address() not in self._addresses and not spec.access.startswith("w") and is_reachable(spec):
                missing[slot] = spec
        return missing


def is_reachable(spec: Descriptor) -> bool:
    """Whether the network namespace of a descriptor exists; the service that makes it may be new as well."""
    return not spec.netns or namespace_of_name(spec.netns) is not None


def _apply(manager: Manager, plan: Plan, prepared: Prepared) -> None:
    """Apply all definitions first, then their consequences."""
    definitions = plan.definitions
    manager.settings = definitions.settings
    manager.sources.learn(definitions)
    taken = {name: prepared.take(name) for name in definitions.services}  # all of them, before any table changes
    for name, service in definitions.services.items():
        kind = plan.kinds.get(name)
        if kind is None:
            manager.add(service, taken[name])
        else:
            # even without a change, as the line may be another one
            manager.define(manager.units[name], service, kind, taken[name])
    gone = [entry.name for entry in plan.services.values() if entry.new is None]
    manager.remove([manager.units[name] for name in gone])
    manager.index(definitions.services)
    for entry in plan.services.values():
        log.info("%s: %s: %s", entry.name, entry.effect.value, entry.reason)
    manager.move(plan.transaction)
    for entry in plan.services.values():
        if entry.old is None and not entry.internal and entry.name not in plan.transaction.up:
            notice("Not running %s", entry.name)
