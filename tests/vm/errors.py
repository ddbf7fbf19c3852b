"""Faults around a machine, as opposed to failing checks inside."""

from __future__ import annotations


class MachineError(Exception):
    """A machine cannot be had, or did not do what a sound one does.  The text is what the case fails with."""


class BuildError(MachineError):
    """A step of building failed; the text ends with what it printed last."""
