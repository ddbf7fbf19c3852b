"""Starting a built-in worker: in the forked child as it is, or in a new interpreter for another user."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from supervisor.process.memfd import memfd

OPTIONS = "options"  # the name of the descriptor that holds them


def has_shared(name: str) -> bool:
    """Whether a worker says that its processes have something in common, to be imported once for all of them."""
    from workers.runtime.start import has_shared

    return has_shared(name)


def load_shared(name: str) -> None:
    """Import what the processes of a worker are to share with each other.  For the child that forks them only."""
    from workers.runtime.start import load_shared

    load_shared(name)


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
