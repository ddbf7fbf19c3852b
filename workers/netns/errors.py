"""Errors of the netns worker."""

from __future__ import annotations

from supervisor.errors import SpawnError


class NetnsError(SpawnError):
    """Root of what this worker raises itself."""


class OptionsError(NetnsError):
    """The options of its definition are wrong."""


class ForeignError(NetnsError):
    """An object of another owner is in the way, and stays."""


class SetUpError(NetnsError):
    """The namespace cannot be set up."""
