"""The start of spawnd: its arguments, which remain when it executes itself anew, and its Python interpreter.

Definitions are UTF-8 in every locale, so arguments and paths are UTF-8 as well (`-X utf8`). `-I` keeps modules
of the current user, of `$PYTHONPATH` and of the working directory out of a process of root.
"""

from __future__ import annotations

import os
import site
import sys
from dataclasses import dataclass

import spawn_supervisor

ISOLATED = "-IXutf8"  # one argument, as the first line of a script allows no more
UTF8 = "-Xutf8"
RESUME = "--resume"  # the words of an exec: this one with a number, after TRIAL or not
TRIAL = "--trial"


def interpreter() -> list[str]:
    """Return the start of every command line that runs Python."""
    return [sys.executable, ISOLATED if _is_found_isolated() else UTF8]


def enter_utf8_mode() -> None:
    """Execute this program again if UTF-8 mode is off, because scripts of pip give the interpreter no options.

    A module that was named with `-m` is not isolated, because isolation may hide it. Raises OSError.
    """
    if sys.flags.utf8_mode:
        return
    again = interpreter() if sys.modules["__main__"].__spec__ is None else [sys.executable, UTF8]
    if sys.orig_argv[1:2] != again[1:]:  # a later option has switched it off, and would do so again
        os.execv(again[0], [*again, *sys.orig_argv[1:]])  # noqa: S606  # our own program


def _is_found_isolated() -> bool:
    """Whether an isolated interpreter finds this package too."""
    home = os.path.dirname(spawn_supervisor.HERE)
    first = sys.path[:2]  # our own folder, and that of the script or the working directory
    left_out = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), site.getusersitepackages(), *first]
    return home in site.getsitepackages() or home not in map(os.path.abspath, filter(None, left_out))


@dataclass(frozen=True, slots=True)
class Origin:
    """`paths` are the definition files and folders, absolute; `level` is the log level of the command line or ''.

    `nofile_soft` is the soft descriptor limit at the start of spawnd, `program` the command that executes it
    again. `stderr_is_open` is whether its log goes to stderr.
    """

    paths: list[str]
    level: str
    nofile_soft: int
    program: list[str]
    stderr_is_open: bool


def program() -> list[str]:
    """Return the command that executes the installed version again. To be called before the folder changes."""
    script = os.path.abspath(sys.argv[0])
    return [script] if os.access(script, os.X_OK) else [*interpreter(), script]
