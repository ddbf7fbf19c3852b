"""A cgroup that has become empty, as plain data for a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEFT_OUT = "/…"


@dataclass(frozen=True, slots=True)
class Released:
    """The measurements of a released cgroup; None for a value that the kernel does not tell.

    `path` is the path below the root of the cgroup file system, as in `/proc/PID/cgroup`. A path that is too long for
    that has LEFT_OUT in place of `left_out` names before the last one. `fd` is an open descriptor (O_PATH or O_RDONLY)
    of its folder, which may be deleted by now. The maker owns it, and keeps it open until the handlers with this
    object have ended. `counted` has numbers by their names in scripts, times in seconds.
    """

    path: str
    fd: int
    btime: float | None = None  # seconds since the epoch
    age: float | None = None  # seconds
    counted: Mapping[str, float | None] = field(default_factory=dict)
    left_out: int | None = None
