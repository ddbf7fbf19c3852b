"""Starting a worker, in a child of spawnd as well as in an interpreter of its own."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable


def load(name: str) -> Callable[[], int]:
    """The main function of the worker `name`, `workers.NAME.main.main`; it returns the exit status."""
    if not _is_name(name):
        raise ValueError(f"cannot load worker {name!r}: not a name of one")
    main: Callable[[], int] = importlib.import_module(f"workers.{name}.main").main
    return main


def load_shared(name: str) -> None:
    """Import `workers.NAME.shared`, if there is such a module: what all processes of a worker are to share.

    For spawnd, before it forks them: what each imported by itself would be each one's own memory.
    """
    try:
        found = importlib.util.find_spec(f"workers.{name}.shared") if _is_name(name) else None
    except ModuleNotFoundError:  # no such worker: the child that is to be one says so
        return
    if found is not None:
        importlib.import_module(found.name)


def _is_name(name: str) -> bool:
    # no regular expression: to compile one costs each worker half a megabyte of its own
    return name.isascii() and name.isidentifier() and name.islower() and name[0] != "_"
