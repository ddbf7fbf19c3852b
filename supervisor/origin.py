"""How spawnd was started: what stays the same when it executes itself anew."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from supervisor.interpreter import interpreter


@dataclass(frozen=True, slots=True)
class Origin:
    """`paths` are the definition files and folders, absolute; `level` is the log level of the command line or ''.

    `nofile_soft` is the soft descriptor limit that spawnd was started with, `program` how to
    execute it, `stderr_is_open` whether its log goes there.
    """

    paths: list[str]
    level: str
    nofile_soft: int
    program: list[str]
    stderr_is_open: bool


def program() -> list[str]:
    """How to execute what is installed where this process came from.  To be asked before the folder changes."""
    script = os.path.abspath(sys.argv[0])
    return [script] if os.access(script, os.X_OK) else [*interpreter(), script]
