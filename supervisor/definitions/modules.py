"""A module of a definition file: its globals are the keys of a service, its functions start and stop it."""

from __future__ import annotations

from typing import Any

from supervisor.definitions.lines import Lines, Node
from supervisor.definitions.lua import Function, Module
from supervisor.definitions.near import hint
from supervisor.definitions.scope import Scope

FUNCTIONS = ("start", "stop", "restart", "reload", "status")
BOTH = ("restart", "status")  # which are keys, too


def keys_of(module: Module, scope: Scope) -> dict[str, Any]:
    """Its keys with their values, as a table would have them.  What is given twice is reported."""
    entries = [(entry.name, entry.line, entry.before) for entry in module.keys]
    for name, line, before in (*entries, *((entry.name, entry.line, entry.before) for entry in module.functions)):
        if before:
            text = f"{scope.name}: key {name!r} is given twice, first on line {before}"
            both = "; beside a function of its name a key has to be in _DEFAULT" if name in BOTH else ""
            scope.problems.add(scope.file, line, f"{text}{both}")
    values = {str(entry.name): entry.value for entry in module.keys}
    if module.depends:
        values["depends"] = [name for _line, name in module.depends]
    return values


def functions_of(module: Module, scope: Scope) -> dict[str, int]:
    """Its functions with their lines, in the order of `FUNCTIONS`; others are reported."""
    lines = {}
    for function in module.functions:
        if function.name in FUNCTIONS:
            lines[function.name] = function.line
        else:
            scope.problems.add(scope.file, function.line, _unknown(function, scope))
    return {name: lines[name] for name in FUNCTIONS if name in lines}


def _unknown(function: Function, scope: Scope) -> str:
    near = hint(function.name, FUNCTIONS)
    others = "" if near else "; one that others call has to be local or have a name that begins with '_'"
    return f"{scope.name}: unknown function {function.name!r}{near}{others}"


def node_of(module: Module, lines: Lines) -> Node:
    """The lines of its keys: where they are written down, else where they were set."""
    node: Node = {}
    for entry in module.keys:
        name = str(entry.name)
        found = lines.find_key(name, module.line, entry.line)
        node[name] = (found.first, found.node) if found else (entry.line, {})
    if module.depends:
        names: Node = {index: (line, {}) for index, (line, _name) in enumerate(module.depends, 1)}
        node["depends"] = (module.depends[0][0], names)
    return node
