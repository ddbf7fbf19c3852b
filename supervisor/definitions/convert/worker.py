"""The built-in program that a service runs instead of an executable file."""

from __future__ import annotations

import importlib.util
import os
import re

from supervisor.definitions.near import hint
from supervisor.definitions.problems import Bad
from supervisor.definitions.scope import Scope
from supervisor.definitions.values import describe

BUILT_IN = frozenset({"log", "function"})  # the supervisor runs them itself

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def worker(value: object, scope: Scope) -> str:
    """The name of an installed worker: the module `workers.NAME.main`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Bad(f"{describe(value)} is not the name of a worker" + hint(value, _installed()))
    if value in BUILT_IN:
        raise Bad(f"{value!r} is built in and needs no definition")
    known = scope.host.workers
    if value not in known:
        known[value] = "" if _exists(value) else f"unknown worker {value!r}" + hint(value, _installed())
    if known[value]:
        raise Bad(known[value])
    return value


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"workers.{name}.main") is not None
    except ModuleNotFoundError:
        return False


def _installed() -> list[str]:
    package = importlib.util.find_spec("workers")
    folders = package.submodule_search_locations if package else None
    return [
        entry.name
        for folder in folders or ()
        for entry in os.scandir(folder)
        if entry.name not in BUILT_IN and os.path.exists(os.path.join(entry.path, "main.py"))
    ]
