"""Command lines of sources as `exec` and `arg`."""

from __future__ import annotations

import os
import shlex
import shutil

from importer.addresses import number
from importer.ledger import Directive, Ledger
from importer.result import Definition

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV = "/usr/bin/env"  # looks a program up


def split(text: str) -> list[str]:
    """Return the words of a command line, in quotes as a shell has them. Raises ValueError with the cause."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{str(error)[:1].lower()}{str(error)[1:]}") from None
    if not words or not words[0]:
        raise ValueError("the command is empty")
    return words


def set_command(
    ledger: Ledger, definition: Definition, directive: Directive, words: list[str], folder: str = ""
) -> None:
    """Set `exec` and `arg`. A program without a folder is looked up, one of a relative path is below `folder`."""
    program, *arguments = words
    if "/" not in program:
        found = shutil.which(program, path=PATH)
        if found is None:
            ledger.approximate(directive, f"{program!r} is not on this host: its path belongs into 'exec'", definition)
            arguments, found = words, ENV
        program = found
    elif not program.startswith("/"):
        program = os.path.normpath(os.path.join(folder or "/", program))
    definition.set("exec", program)
    if arguments:
        definition.set("arg", [number(argument) for argument in arguments])
    ledger.carried(directive)
