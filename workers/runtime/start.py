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


def has_shared(name: str) -> bool:
    """Whether there is `workers.NAME.shared`: what all processes of a worker are to share."""
    try:
        return _is_name(name) and importlib.util.find_spec(f"workers.{name}.shared") is not None
    except ModuleNotFoundError:  # no such worker: the child that is to be one says so
        return False


def load_shared(name: str) -> None:
    """Import `workers.NAME.shared`, in the process that forks them.

    What each imported by itself would be each one's own memory.
    """
    importlib.import_module(f"workers.{name}.shared")


def _is_name(name: str) -> bool:
    # no regular expression: to compile one costs each worker half a megabyte of its own
    return name.isascii() and name.isidentifier() and name.islower() and name[0] != "_"
