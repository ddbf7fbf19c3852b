"""`apply` does what `plan` says: many definitions, services in many states, a real spawnd."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from supervisor.ctl.client import Client
from tests.daemon import Daemon, wait_until

NAMES = "abcde"
WORKS, FAILS, ENDS = "works", "fails", "ends"
PROGRAMS = {
    WORKS: 'exec = "/bin/sleep", arg = { "100000" }',
    FAILS: 'exec = "/bin/false", start_limit = 1',
    ENDS: 'exec = "/bin/true", task = true, start_limit = 1',
}
KEYS = ['cwd = "/tmp"', 'stop_timeout = "5s"', 'memory_max = "1g"', 'status = "stop"']
COMES_TO = {WORKS: "running", FAILS: "failed", ENDS: "done"}
SETTLED = {"stopped", "running", "failed", "done", "waiting"}
PROCESS_STAYS = {"nothing", "adopt", "limits", "reload"}


@dataclass(frozen=True)
class Definition:
    """A service: what it runs, and keys in Lua."""

    name: str
    program: str
    keys: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.name} = {{ {', '.join((PROGRAMS[self.program], *self.keys))} }}"


@st.composite
def definitions(draw: st.DrawFn) -> list[Definition]:
    """Some of the services, each of which may need some before it and conflict with some after it."""
    found = []
    names = [name for name in NAMES if draw(st.integers(0, 3))]
    for number, name in enumerate(names):
        keys = draw(st.sets(st.sampled_from(KEYS)))
        if draw(st.booleans()):
            keys.add(f'fd = {{ stream("@{name}-FOLDER", {{ backlog = {draw(st.integers(7, 8))} }}) }}')
        if number and draw(st.booleans()):
            keys.add(f'depends = "{draw(st.sampled_from(names[:number]))}"')
        if names[number + 1 :] and not draw(st.integers(0, 3)):
            keys.add(f'conflicts = "{draw(st.sampled_from(names[number + 1 :]))}"')
        program = draw(st.sampled_from([WORKS, WORKS, WORKS, FAILS, ENDS]))
        found.append(Definition(name, program, tuple(sorted(keys))))
    return found


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[Definition], list[Definition]]:
    """Two sets of definitions, of which the second mostly has services of the first, with a key more or less."""
    first, then = draw(definitions()), draw(definitions())
    found = {service.name: service for service in then}
    for service in first:
        if draw(st.integers(0, 2)):
            changed = draw(st.sets(st.sampled_from(KEYS), max_size=1))
            found[service.name] = replace(service, keys=tuple(sorted({*service.keys} ^ changed)))
    for name in NAMES:  # who is named has to be there
        if any(f'"{name}"' in key for service in found.values() for key in service.keys):
            found.setdefault(name, Definition(name, WORKS))
    return first, list(found.values())


VERBS: list[tuple[str, dict[str, bool]]] = [("Start", {}), ("Stop", {"alone": True}), ("Stop", {"cascade": True})]
ORDERS = st.lists(st.tuples(st.sampled_from(VERBS), st.sampled_from(NAMES)), max_size=2)


class World:
    """One spawnd for all examples, each of which begins with no service at all."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.client = Client(str(daemon.socket))
        self.programs: dict[str, str] = {}

    def write(self, services: list[Definition]) -> None:
        """Make these the definitions; nobody is told."""
        self.programs = {service.name: service.program for service in services}
        text = "\n".join(map(str, services)).replace("FOLDER", self.daemon.folder.name)
        self.daemon.definitions.write_text(text + "\n")

    def clear(self) -> None:
        self.write([])
        assert self.client.call("Apply")["problems"] == []
        assert self.state() == {}

    def state(self) -> dict[str, dict[str, Any]]:
        """All about each service."""
        rows = self.client.call("Status", names=["all"])["services"] if self.client.call("List")["services"] else []
        return {row["name"]: row for row in rows}

    def settle(self) -> dict[str, dict[str, Any]]:
        """Their state once nothing is under way."""

        found: dict[str, dict[str, Any]] = {}

        def at_rest() -> bool:
            nonlocal found
            found = self.state()
            return all(self._is_at_rest(row) for row in found.values())

        wait_until(at_rest, "services at rest")
        return found

    def _is_at_rest(self, row: dict[str, Any]) -> bool:
        """Not one that is soon to end, or that has nothing left to wait for."""
        if row["state"] == "running":
            return self.programs.get(row["name"], WORKS) == WORKS
        return row["state"] in SETTLED and (row["state"] != "waiting" or bool(row["waits"]))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="spawnd-plan-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Daemon(folder, "") as daemon:
            world = World(daemon)
            yield world
            world.client.close()


def assert_kept(
    step: str, ok: bool, before: dict[str, Any] | None, after: dict[str, Any] | None, program: str
) -> None:
    """That what is seen of a service is what was planned for it."""
    starts, pid = (before["starts"], before["pid"]) if before is not None else (0, None)
    if step == "stop":
        assert before is not None
        assert before["state"] not in ("stopped", "failed", "done")
        assert after is None or (after["pid"] is None and after["state"] == "stopped")
        return
    if step in PROCESS_STAYS:
        assert after is None or (after["pid"], after["starts"]) == (pid, starts)
        assert after is not None or pid is None
        return
    assert after is not None
    if step in ("restart", "rebuild"):
        assert pid is not None
        assert after["pid"] != pid
    else:
        assert pid is None
    if ok:
        assert after["starts"] == starts + 1
        assert after["state"] == COMES_TO[program]
    elif after["state"] == "waiting":
        assert after["starts"] == starts
    else:
        assert (after["state"], after["starts"]) == ("failed", starts + 1)


def event_of_states(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        event(f"before: {row['state']}")


@settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(pairs(), ORDERS)
def test_apply_does_what_plan_says(
    world: World, pair: tuple[list[Definition], list[Definition]], orders: list[tuple[tuple[str, dict[str, bool]], str]]
) -> None:
    first, then = pair
    world.clear()
    world.write(first)
    world.client.call("Apply")
    names = [definition.name for definition in first]
    for (method, parameters), name in orders:
        if name in names:
            world.client.call(method, names=[name], **parameters)
    before = world.settle()
    event_of_states(before)
    world.write(then)
    plan = world.client.call("Plan")
    assert plan["problems"] == []
    applied = world.client.call("Apply", expect=plan["digest"])
    planned = [(row["name"], row["step"], row["reason"]) for row in plan["services"]]
    assert [(row["name"], row["step"], row["reason"]) for row in applied["services"]] == planned
    after = world.settle()
    steps = {row["name"]: (row["step"], row["ok"]) for row in applied["services"]}
    for name in before.keys() | after.keys():
        step, ok = steps.get(name, ("nothing", True))
        event(step)
        assert_kept(step, ok, before.get(name), after.get(name), world.programs.get(name, WORKS))
    assert list(after) == list(world.programs)
    assert world.client.call("Plan")["services"] == []
    assert "unexpected error" not in world.daemon.log()
