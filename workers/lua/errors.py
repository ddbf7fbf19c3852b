"""Errors between a script and us, split by whose fault they are."""

from __future__ import annotations

from supervisor.errors import SpawnError


class ScriptError(SpawnError):
    """The script cannot be read, is not Lua, or raised an error when it was executed; the text has Lua's traceback."""


class Fault(SpawnError):
    """The script called a function wrongly: an error is raised in it, at the line of the call."""


class Failure(SpawnError):
    """The request of the script cannot be met now: the function returns nil and this text."""


def bad_argument(name: str, number: int, what: str) -> Fault:
    """Return a Fault in the words of Lua's own libraries; a method's arguments are counted without its object."""
    return Fault(f"bad argument #{number} to '{name}' ({what})")
