"""What the netns worker cannot do."""

from __future__ import annotations

from supervisor.errors import SpawnError


class NetnsError(SpawnError):
    """Root of what this worker raises itself."""


class OptionsError(NetnsError):
    """The options of its definition are wrong."""


class ForeignError(NetnsError):
    """Something is there already that is not its own, so it is left alone."""


class SetUpError(NetnsError):
    """The namespace cannot be set up."""
