"""The built-in program that a service runs instead of an executable file."""

from __future__ import annotations

import importlib.util
import os
import re

from supervisor.definitions.checking import Checking
from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.values import describe

BUILT_IN = frozenset({"log", "function"})  # the supervisor runs them itself

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def worker(value: object, checking: Checking) -> str:
    """The name of an installed worker: the module `workers.NAME.main`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidValue(f"{describe(value)} is not the name of a worker" + did_you_mean(value, installed()))
    if value in BUILT_IN:
        raise InvalidValue(f"{value!r} is built in and needs no definition")
    known = checking.databases.workers
    if value not in known:
        known[value] = "" if _exists(value) else f"unknown worker {value!r}" + did_you_mean(value, installed())
    if known[value]:
        raise InvalidValue(known[value])
    return value


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"workers.{name}.main") is not None
    except ModuleNotFoundError:
        return False


def installed() -> list[str]:
    """The names of the workers that a definition can have."""
    package = importlib.util.find_spec("workers")
    folders = package.submodule_search_locations if package else None
    return [
        entry.name
        for folder in folders or ()
        for entry in os.scandir(folder)
        if entry.name not in BUILT_IN and os.path.exists(os.path.join(entry.path, "main.py"))
    ]
