"""spawn-supervisor: one supervisor for one Linux host, in the inetd style.

The programs begin here: where a part of the installation cannot be loaded, they say so in one line.
"""

from __future__ import annotations

import gc
import os
import sys
from errno import EMFILE, ENFILE, ENOMEM

from supervisor.deferred import defer

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_FAILED = 1  # as in `errors.py`, which is imported later
CANNOT_ENTER = 125  # as in `workers/accessory/enter/command.py`
AGAIN = "install spawn-supervisor again"

# `dataclasses` imports it only for docstrings of classes without one; with its own imports it takes 1.3 MB of
# each process
defer("inspect")


def spawnd() -> int:
    return run("spawnd", lambda: _main_of("supervisor.main"))


def spawnctl() -> int:
    return run("spawnctl", lambda: _main_of("supervisor.ctl.main"))


def spawn_enter() -> int:
    return run("spawn-enter", lambda: _main_of("workers.accessory.enter.main"), CANNOT_ENTER)


def _main_of(module: str) -> Callable[[], int]:
    main: Callable[[], int] = __import__(module, fromlist=("main",)).main
    return main


def run(program: str, load: Callable[[], Callable[[], int]], failed: int = EXIT_FAILED) -> int:
    """Call the function that `load` imports, and return its exit status; `failed` if the installation is incomplete."""
    gc.disable()  # imports leave no garbage, and a tenth of their time would be spent on looking for it
    try:
        main = load()
    except (ImportError, OSError) as error:
        cause = why_not_loaded(error)
        if not cause or sys.stderr is None:
            raise
        print(f"{program}: {cause}", file=sys.stderr)
        return failed
    gc.enable()
    return main()


def why_not_loaded(error: ImportError | OSError) -> str:
    """Return why a library or a module cannot be loaded, and what helps; '' for any other error."""
    if isinstance(error, ModuleNotFoundError):
        python = f"Python {sys.version_info.major}.{sys.version_info.minor} ({sys.executable})"
        return f"cannot import {error.name!r}: it is not installed for {python}; {AGAIN}"
    path, _, cause = str(error).partition(": ")  # the text of dlopen(3)
    if not path.endswith(".so"):
        if isinstance(error, OSError) and error.errno in (EMFILE, ENFILE, ENOMEM):
            return f"cannot load {error.filename!r}: {error.strerror}"
        return ""
    if not os.path.exists(path):
        return f"cannot load {path!r}: it does not exist; {AGAIN}"
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        elsewhere = "install spawn-supervisor elsewhere, or mount that one without it"
        return f"cannot load {path!r}: its file system is mounted with noexec; {elsewhere}"
    return f"cannot load {path!r}: {cause}; {AGAIN}, on this kind of machine ({os.uname().machine})"
