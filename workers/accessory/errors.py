"""The exceptions of the accessory, split by whose fault it is."""

from __future__ import annotations


class AccessoryError(Exception):
    """Root of everything that the accessory raises itself; its text is for the client."""


class ProtocolError(AccessoryError):
    """The client broke the protocol; the answer says so, and its connection ends."""


class NotAllowed(AccessoryError):
    """No rule lets the client ask; the answer says so, and its connection ends."""


class Refused(AccessoryError):
    """The client may not have this, or has too much already; the connection stays usable."""


class OptionsError(AccessoryError):
    """The options of the definition are wrong."""
