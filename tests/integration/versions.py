"""A spawnd that is installed in the folder of a test, which can install another one in its place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.daemon import Daemon

SCRIPT = """#!{python}{options}
import os, sys, time
trial, resumes = "--trial" in sys.argv, "--resume" in sys.argv
import spawn_supervisor
{first}
from supervisor.main import main
{then}
sys.exit(main())
"""


def install(folder: Path, first: str = "", then: str = "", options: str = " -IXutf8") -> str:
    """Put a spawnd in its place that does something `first`, or `then`, when it is imported; its path.

    `options` of the interpreter are those of `make install`, or none, as pip writes scripts.
    """
    path, new = folder / "spawnd", folder / "spawnd.new"
    new.write_text(SCRIPT.format(python=sys.executable, options=options, first=first, then=then))
    new.chmod(0o755)
    new.rename(path)
    return str(path)


@contextmanager
def installed(folder: Path, definitions: str, *options: str, env: dict[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon that has been started from such a place."""
    daemon = Daemon(folder, definitions.replace("@", str(folder)), *options, env=env)
    daemon.program = install(folder)
    with daemon:
        yield daemon
