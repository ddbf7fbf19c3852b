"""The imports between the rooms of the design, read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import importer
import supervisor
import workers

SERVICE = "supervisor.definitions.service"  # plain dataclasses
# the last is the version, and nothing else
FOR_EVERYBODY = {
    "supervisor.errors", "supervisor.json_text", "supervisor.places", "supervisor.printable", "supervisor",
}  # fmt: skip
OURS = ("supervisor", "workers", "importer")
KNOW_THE_NETWORK = ("workers.netns", "workers.lua")  # what pyroute2 is for
KNOWN_TO_LUA = (
    "supervisor.definitions.scalars",  # how definitions write signals and limits, which scripts write alike
    "supervisor.definitions.problems",
    SERVICE,
)
SHARED_WITH_WORKERS = ("linux", "loop", "notify", "log", "varlink")


class Module:
    """A source file by its dotted name, with what it imports: anywhere, and when it is imported itself."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        tree = ast.parse(text)
        self.imports = frozenset(_imported(ast.walk(tree)))
        self.imports_at_once = frozenset(_imported(_outside_functions(tree)))

    def below(self, *packages: str) -> bool:
        return any(_is_below(self.name, package) for package in packages)

    def ours(self) -> set[str]:
        return {name for name in self.imports if _is_below(name, *OURS)} - FOR_EVERYBODY


def _is_below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _outside_functions(child)


def _imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Modules by name.  `from a import b` is `a.b` where that is a module, else `a`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _is_module(inner) else node.module


def _is_module(name: str) -> bool:
    first, *rest = name.split(".")
    roots = {"supervisor": supervisor, "workers": workers, "importer": importer}
    if first not in roots or not rest:
        return False
    path = Path(roots[first].__file__ or "").parent.joinpath(*rest)
    return path.with_suffix(".py").is_file() or path.is_dir()


def _load() -> list[Module]:
    found = []
    for package in (supervisor, workers, importer):
        root = Path(package.__file__ or "").parent
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root.parent).with_suffix("").parts
            found.append(Module(".".join(parts).removesuffix(".__init__"), path.read_text()))
    return found


MODULES = _load()


def modules(*packages: str) -> list[Module]:
    found = [module for module in MODULES if module.below(*packages)]
    assert found, f"no modules in {packages}"
    return found


def strangers(found: list[Module], *allowed: str) -> dict[str, set[str]]:
    """Return our modules that these import beyond themselves and the allowed ones."""
    wrong = {module.name: {name for name in module.ours() if not _is_below(name, *allowed)} for module in found}
    return {name: names for name, names in wrong.items() if names}


def using(found: list[Module], *names: str) -> dict[str, set[str]]:
    wrong = {module.name: {name for name in module.imports if _is_below(name, *names)} for module in found}
    return {name: names for name, names in wrong.items() if names}


@pytest.mark.parametrize("room", ["linux", "loop", "launch"])
def test_the_lowest_rooms_import_nothing_of_ours(room: str) -> None:
    package = f"supervisor.{room}"
    assert strangers(modules(package), package) == {}


def test_lifecycle_is_pure() -> None:
    found = modules("supervisor.lifecycle")
    assert strangers(found, "supervisor.lifecycle", SERVICE) == {}
    others = {name.partition(".")[0] for module in found for name in module.imports} - {*OURS, "__future__"}
    assert others <= sys.stdlib_module_names
    assert not others & {"os", "time", "random", "signal", "socket", "select", "datetime"}, "no clock, no system call"


def test_what_a_service_is_is_plain_data() -> None:
    assert strangers(modules(SERVICE), SERVICE) == {}


def test_definitions_know_no_processes() -> None:
    rooms = ("process", "manager", "lifecycle", "notify", "control", "ctl", "loop")
    assert using(modules("supervisor.definitions"), *(f"supervisor.{room}" for room in rooms)) == {}


def test_notify_knows_not_what_a_service_is_for() -> None:
    assert strangers(modules("supervisor.notify"), "supervisor.notify", "supervisor.linux", "supervisor.loop") == {}


@pytest.mark.parametrize("room", ["process", "control", "ctl", "notify", "lifecycle", "loop", "log", "varlink"])
def test_only_the_definitions_know_lua(room: str) -> None:
    found = modules(f"supervisor.{room}")
    assert using(found, "lupa", "supervisor.lua", "supervisor.definitions.lua") == {}


def test_varlink_knows_not_what_is_called() -> None:
    rooms = ("varlink", "linux", "loop", "log")
    assert strangers(modules("supervisor.varlink"), *(f"supervisor.{room}" for room in rooms)) == {}


def test_processes_take_a_service_as_plain_data() -> None:
    wrong = using(modules("supervisor.process"), "supervisor.definitions")
    assert {name: names - {SERVICE} for name, names in wrong.items() if names - {SERVICE}} == {}


def test_what_is_written_down_is_plain_data() -> None:
    rooms = ("process", "manager", "takeover", "notify", "control", "ctl", "loop", "log")
    assert using(modules("supervisor.state"), *(f"supervisor.{room}" for room in rooms)) == {}


def test_leaves_import_no_manager() -> None:
    rooms = ("definitions", "lifecycle", "process", "notify", "log", "loop", "linux", "varlink", "ctl", "state")
    above = ("manager", "changes", "takeover")
    assert using(modules(*(f"supervisor.{room}" for room in rooms)), *(f"supervisor.{room}" for room in above)) == {}


def test_units_know_nothing_of_control() -> None:
    assert using(modules("supervisor.manager", "supervisor.changes"), "supervisor.control") == {}


def test_systemd_knows_no_units() -> None:
    above = ("manager", "changes", "takeover", "control", "definitions", "lifecycle")
    assert using(modules("supervisor.systemd"), *(f"supervisor.{room}" for room in above)) == {}


def test_the_supervisor_imports_no_worker_before_it_has_forked() -> None:
    wrong = {
        module.name: {name for name in module.imports_at_once if _is_below(name, "workers")}
        for module in modules("supervisor")
    }
    assert {name: names for name, names in wrong.items() if names} == {}


def test_the_importer_knows_definitions_alone_and_only_its_verb_knows_the_importer() -> None:
    assert strangers(modules("importer"), "importer", "supervisor.definitions", "supervisor.linux.capabilities") == {}
    assert using(modules("importer"), "supervisor.definitions.lua", "lupa") == {}
    assert set(using(modules("supervisor", "workers"), "importer")) == {"supervisor.ctl.verbs.import"}


@pytest.mark.parametrize("module", modules("workers"), ids=lambda module: module.name)
def test_a_worker_knows_what_all_share_and_itself(module: Module) -> None:
    itself = ".".join(module.name.split(".")[:2])
    allowed = [f"supervisor.{room}" for room in SHARED_WITH_WORKERS]
    if itself in KNOW_THE_NETWORK:
        allowed.append("workers.network")
    if itself == "workers.lua":
        allowed += KNOWN_TO_LUA
    assert strangers([module], "workers.runtime", "workers.lua", itself, *allowed) == {}


def test_the_lua_host_knows_no_worker_and_not_what_workers_share() -> None:
    allowed = ("workers.lua", "workers.network", "supervisor.linux", *KNOWN_TO_LUA)
    assert strangers(modules("workers.lua"), *allowed) == {}


def test_only_the_room_of_the_network_knows_pyroute2_and_not_at_once() -> None:
    found = using(modules("supervisor", "workers"), "pyroute2")
    assert set(found) == {"workers.network.stack"}
    at_once = [module.name for module in modules("workers") if "workers.network.stack" in module.imports_at_once]
    assert set(at_once) == {"workers.lua.net", "workers.netns.build"}, "for type checkers alone"


def test_a_netns_worker_that_stays_imports_next_to_nothing() -> None:
    """Each module costs each of hundreds of workers a tenth of a megabyte."""
    stays = {f"workers.netns.{name}" for name in ("main", "worker", "forked_task")}
    found = {name for module in modules(*stays) for name in module.imports_at_once if _is_below(name, *OURS)}
    allowed = ("workers.runtime.start", "supervisor.loop", "supervisor.log", "supervisor.notify")
    assert {name for name in found - stays - FOR_EVERYBODY if not _is_below(name, *allowed)} == {
        "supervisor.linux.capabilities",
        "supervisor.linux.signal_mask",
    }


def test_spawnd_runs_neither_subprocess_nor_asyncio() -> None:
    found = [module for module in modules("supervisor") if not module.below("supervisor.ctl")]
    assert using(found, "subprocess", "asyncio", "concurrent", "multiprocessing") == {}


def test_the_reading_of_imports_finds_them_all() -> None:
    text = """
import os, subprocess
from supervisor.process import run
from supervisor.errors import StepError
class A:
    import asyncio
    def f(self):
        from workers.log import main
        import lupa
if True:
    from workers.runtime.start import load
"""
    module = Module("supervisor.test", text)
    at_once = {"os", "subprocess", "supervisor.process.run", "supervisor.errors", "asyncio", "workers.runtime.start"}
    assert module.imports_at_once == at_once
    assert module.imports == at_once | {"workers.log.main", "lupa"}
    assert module.ours() == {"supervisor.process.run", "workers.log.main", "workers.runtime.start"}
