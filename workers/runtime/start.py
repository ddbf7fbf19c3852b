"""Starting a worker, in a child of spawnd or an interpreter of its own, with the descriptors that spawnd hands over."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from typing import Any

from supervisor.notify import service_side

OPTIONS = "options"
CONTROL = "control"  # the listening socket of `control = true`


def load(name: str) -> Callable[[], int]:
    """Return the main function of the worker `name`, `workers.NAME.main.main`, which returns the exit status."""
    if not _is_name(name):
        raise ValueError(f"cannot load worker {name!r}: not a name of one")
    main: Callable[[], int] = importlib.import_module(f"workers.{name}.main").main
    return main


def load_shared(name: str) -> None:
    """Import `workers.NAME.shared`, if it exists: the modules that each process of a worker would import anew.

    For spawnd, before it forks one.
    """
    if _has(name, "shared"):
        importlib.import_module(f"workers.{name}.shared")


def has_resident(name: str) -> bool:
    """Whether `workers.NAME.resident` exists: the modules that the many processes of a worker share."""
    return _has(name, "resident")


def load_resident(name: str) -> None:
    """Import `workers.NAME.resident`, in the process that forks the workers and does nothing else."""
    importlib.import_module(f"workers.{name}.resident")


def _has(name: str, module: str) -> bool:
    try:
        return _is_name(name) and importlib.util.find_spec(f"workers.{name}.{module}") is not None
    except ModuleNotFoundError:  # no such worker, which its child will report
        return False


def _is_name(name: str) -> bool:
    # no regular expression: compiling one costs each worker half a megabyte of its own
    return name.isascii() and name.isidentifier() and name.islower() and name[0] != "_"


def passed_descriptors() -> dict[str, list[int]]:
    """Return all descriptors that spawnd passed on by name, in order; the caller owns them."""
    result: dict[str, list[int]] = {}
    for name, fd in service_side.passed_descriptors():
        result.setdefault(name, []).append(fd)
    return result


def read_options(fd: int) -> dict[str, Any]:
    """Return the `options` of the worker's definition; closes `fd`."""
    with open(fd, "rb") as file:
        file.seek(0)
        options: dict[str, Any] = json.load(file)
    return options
