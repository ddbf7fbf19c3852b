"""The descriptors that spawnd handed over, by name: sd_listen_fds(3)."""

from __future__ import annotations

import json
from typing import Any

from supervisor.notify import service_side

OPTIONS = "options"
CONTROL = "control"  # the listening socket of `control = true`


def passed_descriptors() -> dict[str, list[int]]:
    """Return all descriptors that spawnd handed over by name, in their order; they are the caller's."""
    result: dict[str, list[int]] = {}
    for name, fd in service_side.passed_descriptors():
        result.setdefault(name, []).append(fd)
    return result


def read_options(fd: int) -> dict[str, Any]:
    """Read the `options` of the worker's definition; closes `fd`."""
    with open(fd, "rb") as file:
        file.seek(0)
        options: dict[str, Any] = json.load(file)
    return options
