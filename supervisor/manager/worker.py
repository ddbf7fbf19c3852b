"""Starting a built-in worker: in the forked child as it is, or in a new interpreter for another user."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from supervisor.process.memfd import memfd

OPTIONS = "options"  # the name of the descriptor that holds them


def load_shared(name: str) -> None:
    """Import what each process of a worker would import anew, if it says that there is something.

    In spawnd, before the fork: it is asked for by name and nothing else is known of it.  Raises whatever that raises.
    """
    from workers.runtime.start import load_shared

    load_shared(name)


def has_family(name: str) -> bool:
    """Whether a worker is one of many, which have something in common, to be imported once for all of them."""
    from workers.runtime.start import has_family

    return has_family(name)


def load_family(name: str) -> None:
    """Import what such workers have in common.  For the child that forks them only."""
    from workers.runtime.start import load_family

    load_family(name)


def load_worker(name: str) -> Callable[[], int]:
    """The main function of a worker.  For the forked child only: spawnd itself imports no worker."""
    from workers.runtime.start import load

    return load(name)


def worker_command(name: str) -> tuple[str, ...]:
    """What to execute for a worker that must not inherit spawnd's memory."""
    return (sys.executable, "-I", "-m", "workers.runtime", name)


def options_file(options: dict[str, Any]) -> int:
    """A memfd with a worker's options as JSON; the caller owns it.  Raises OSError."""
    return memfd(OPTIONS, json.dumps(options).encode())
