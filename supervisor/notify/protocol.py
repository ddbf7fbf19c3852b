"""The notification protocol of `sd_notify(3)`: a datagram of `KEY=value` lines.

Also what carries descriptors into the store: `FDSTORE=1`, `FDNAME=`, `FDSTOREREMOVE=1`,
`FDPOLL=0`.  `BARRIER=1` needs no field: its descriptor is closed once its message is handled,
as any that is not stored, and that is all that its sender waits for.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_DATAGRAM = 4096  # bytes, as systemd has it
MAX_DESCRIPTORS = 253  # SCM_MAX_FD of the kernel
MAX_NAME = 255  # of a stored descriptor, as systemd has it
DEFAULT_NAME = "stored"


@dataclass(frozen=True, slots=True)
class Message:
    """What one datagram says.  Times are seconds; None and False: not said."""

    ready: bool = False
    reloading: bool = False
    status: str | None = None
    watchdog: bool = False
    watchdog_trigger: bool = False
    extend_usec: int | None = None
    store: bool = False
    remove: bool = False
    name: str = DEFAULT_NAME
    poll: bool = True


def parse(datagram: bytes) -> Message:
    """The message in a datagram.  Unknown keys and unusable values are skipped: newer senders must work."""
    values: dict[str, str] = {}
    for line in datagram.decode(errors="replace").split("\n"):
        key, equals, value = line.partition("=")
        if equals:
            values[key] = value
    name = values.get("FDNAME", "")
    named = legal_name(name)
    return Message(
        ready=values.get("READY") == "1",
        reloading=values.get("RELOADING") == "1",
        status=values.get("STATUS"),
        watchdog=values.get("WATCHDOG") == "1",
        watchdog_trigger=values.get("WATCHDOG") == "trigger",
        extend_usec=_number(values.get("EXTEND_TIMEOUT_USEC")),
        store=values.get("FDSTORE") == "1",
        remove=values.get("FDSTOREREMOVE") == "1" and named,  # without a name it would hit what nobody named
        name=name if named else DEFAULT_NAME,
        poll=values.get("FDPOLL") != "0",
    )


def legal_name(name: str) -> bool:
    """Whether a stored descriptor may have this name: printable ASCII without `:`, 1 to 255 bytes."""
    return 0 < len(name) <= MAX_NAME and all(" " <= c <= "~" and c != ":" for c in name)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None
