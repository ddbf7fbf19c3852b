"""Changing to other definitions while everything runs: all or nothing, by the least that does."""

from __future__ import annotations

from dataclasses import dataclass, field

from supervisor.definitions.service import Definitions, Descriptor, Service
from supervisor.errors import DefinitionsError
from supervisor.lifecycle.change import Change
from supervisor.lifecycle.life import State
from supervisor.lifecycle.plan import Plan
from supervisor.lifecycle.planner import make_plan
from supervisor.log.logger import log, notice
from supervisor.manager.manager import Manager
from supervisor.manager.unit import Unit
from supervisor.process.descriptors import Opened
from supervisor.process.failure import failure_of
from supervisor.process.network_namespace import namespace_of_name
from supervisor.process.table import close_all, open_all, wanted


@dataclass(slots=True)
class Prepared:
    """What is there for services before anything is touched: by service and slot.

    Owns `opened`.  `moved` are entries of other units' tables, as unit and slot: the unit gives
    them up when it is sure that the definitions change.
    """

    opened: dict[str, dict[str, Opened]] = field(default_factory=dict)
    moved: dict[str, dict[str, tuple[Unit, str]]] = field(default_factory=dict)

    def take(self, name: str) -> dict[str, Opened]:
        """All that is for a service; it is the caller's."""
        opened = self.opened.pop(name, {})
        for slot, (unit, old) in self.moved.pop(name, {}).items():
            opened[slot] = unit.table.give(old)
        return opened

    def close(self) -> None:
        for opened in self.opened.values():
            close_all(opened)


def plan(manager: Manager, definitions: Definitions, reloads: bool = False) -> Plan:
    """What it takes to make these the definitions; changes nothing.  `reloads` as in `make_plan`."""
    standing = manager.standing()
    defined = [name for name, unit in manager.units.items() if not unit.internal and not unit.removed]
    old = Definitions({name: standing.services[name] for name in defined}, manager.settings)
    lives = {name: life for name, life in standing.lives.items() if not manager.units[name].internal}
    return make_plan(old, lives, standing.stopping, definitions, reloads)


def carry_out(manager: Manager, plan: Plan) -> None:
    """Do what was planned just now, or raise DefinitionsError and change nothing: something cannot be opened."""
    prepared = _prepare(manager, plan)
    try:
        _apply(manager, plan, prepared)
    finally:
        prepared.close()


def _prepare(manager: Manager, plan: Plan) -> Prepared:
    """Open what services that will run need beyond what they have: a busy port shows before anything is stopped."""
    prepared = Prepared()
    problems = []
    held = _Held(manager, plan.definitions)
    for name in plan.moves.up:
        if not _opens(manager, plan, name):
            continue
        service = plan.definitions.services[name]
        missing = held.claim(manager.units.get(name), service, prepared)
        try:
            prepared.opened[name] = open_all(missing)
        except Exception as error:
            problems.append(f"{service.file}:{service.line}: {name}: {failure_of(error)}")
    if problems:
        prepared.close()
        raise DefinitionsError(problems)
    return prepared


def _opens(manager: Manager, plan: Plan, name: str) -> bool:
    """Whether it is to have its descriptors before anything changes: not where a start of the old kind is tried again.

    What has failed for want of a descriptor would else keep all other changes back.
    """
    unit = manager.units.get(name)
    if unit is None or unit.life.state not in (State.FAILED, State.BACKOFF):
        return True
    return plan.kinds.get(name) is Change.REBUILD or bool(plan.moves.up[name].needed_by)


class _Held:
    """What is open now, and which of it nobody will want any more once the definitions have changed."""

    def __init__(self, manager: Manager, definitions: Definitions) -> None:
        self._addresses: set[tuple[object, ...]] = set()
        self._spare: list[tuple[Descriptor, Unit, str]] = []
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

    def claim(self, unit: Unit | None, service: Service, prepared: Prepared) -> dict[str, Descriptor]:
        """What has to be opened for a service.  What others leave is moved to it.

        What is held otherwise has to wait until that one is gone, and until its service starts a
        file that would be truncated and a socket in a network namespace that is not there yet.
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
    """Whether a descriptor can be opened where it is to be: who makes its network namespace may be new, too."""
    return not spec.netns or namespace_of_name(spec.netns) is not None


def _apply(manager: Manager, plan: Plan, prepared: Prepared) -> None:
    """First all definitions, then everything that follows from them."""
    definitions = plan.definitions
    manager.settings = definitions.settings
    manager.texts.learn(definitions)
    taken = {name: prepared.take(name) for name in definitions.services}  # all, before any table changes
    for name, service in definitions.services.items():
        kind = plan.kinds.get(name)
        if kind is None:
            manager.add(service, taken[name])
        else:
            # also where nothing has changed, for the line may be another
            manager.define(manager.units[name], service, kind, taken[name])
    gone = [entry.name for entry in plan.services.values() if entry.new is None]
    manager.remove([manager.units[name] for name in gone])
    manager.index(definitions.services)
    for entry in plan.services.values():
        log.info("%s: %s: %s", entry.name, entry.effect.value, entry.reason)
    manager.move(plan.moves)
    for entry in plan.services.values():
        if entry.old is None and not entry.internal and entry.name not in plan.moves.up:
            notice("Not running %s", entry.name)
