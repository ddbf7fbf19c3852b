"""Services that inetd and xinetd answer themselves, as programs."""

from __future__ import annotations

PROGRAMS: dict[str, tuple[str, ...]] = {
    "echo": ("/bin/cat",),
    "discard": ("/bin/dd", "of=/dev/null", "status=none"),
    "chargen": ("/usr/bin/yes",),
    "daytime": ("/bin/date",),
}
_SINKS = ("discard", "sink", "null")
_DATAGRAMS = "anybody can forge the sender of a datagram, who would get the answers"
_TIME = "its 32 bits end in 2036; an NTP server tells the time"
_NONE = "spawnd answers no client itself, and there is no program for this"


def program(name: str, stream: bool) -> tuple[str, ...] | str:
    """Return the program of a service and its arguments, or why there is none."""
    if name == "time":
        return _TIME
    if name in _SINKS:
        name = "discard"
    if name not in PROGRAMS:
        return _NONE
    return PROGRAMS[name] if stream else _DATAGRAMS
