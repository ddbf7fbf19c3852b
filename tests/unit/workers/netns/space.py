"""Plans for namespaces of a test's own, which are removed in the end."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.namespaces import swept
from workers.netns.plan import Plan, read_plan

HOST, INNER = "10.213.7.1", "10.213.7.2"


def fresh_name() -> str:
    """Legal as the name of an interface, and nobody else's."""
    return f"nt{os.getpid() % 100000}{uuid.uuid4().hex[:6]}"


@contextmanager
def fresh() -> Iterator[str]:
    """A name; what has it in the end is removed."""
    name = fresh_name()
    with swept(name):
        yield name


def options(name: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "link": name,
        "inside": "net0",
        "addresses": [f"{INNER}/24"],
        "host_addresses": [f"{HOST}/24"],
        "routes": [{"to": "0.0.0.0/0", "via": HOST}],
        "setup": False,
        "setup_timeout": 20.0,
    }
    return found | more


def plan(name: str, **more: Any) -> Plan:
    return read_plan(options(name, **more))


def ip(*words: str) -> str:
    """Return the output of `ip`."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
