"""The exceptions of the accessory, split by whose fault it is."""

from __future__ import annotations


class AccessoryError(Exception):
    """Root of everything that the accessory raises itself; its text is for the client."""


class ProtocolError(AccessoryError):
    """The client broke the protocol: it is told so, and its connection ends."""


class NotAllowed(AccessoryError):
    """The client is not among those that may ask: it is told so, and its connection ends."""


class Refused(AccessoryError):
    """The client may not have this, or has too much already; the connection stays usable."""


class OptionsError(AccessoryError):
    """The options of the definition are wrong."""
