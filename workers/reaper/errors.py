"""Errors of the reaper, by whose fault they are."""

from __future__ import annotations

from supervisor.errors import SpawnError


class ReaperError(SpawnError):
    """Root of all of them."""


class OptionsError(ReaperError):
    """The `options` of the definition are wrong."""


class HostError(ReaperError):
    """The host lacks what the reaper needs."""


class DatabaseError(ReaperError):
    """The database of the accounting does not do what it is asked, now."""


class SpoolError(ReaperError):
    """The folder of the spool cannot be used."""
