"""Errors of the reaper, by responsibility."""

from __future__ import annotations

from supervisor.errors import SpawnError


class ReaperError(SpawnError):
    """Root of all errors of the reaper."""


class OptionsError(ReaperError):
    """The `options` of the definition are wrong."""


class HostError(ReaperError):
    """The host lacks something that the reaper requires."""


class DatabaseError(ReaperError):
    """The database of the accounting cannot serve a request now."""


class SpoolError(ReaperError):
    """The folder of the spool cannot be used."""
