"""Network namespaces that tests of a real spawnd define, each with a link of its own."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.daemon import Daemon, call
from tests.namespaces import swept

OWN = os.getpid() % 256  # tests run side by side, and the addresses of the host are everybody's
HOST, INNER = f"10.214.{OWN}.1", f"10.214.{OWN}.2"
Make = Callable[[str, str], str]  # the fixture `program`


@contextmanager
def new_name() -> Iterator[str]:
    found = f"ni{os.getpid() % 100000}{uuid.uuid4().hex[:5]}"
    with swept(found):
        yield found


def definition(name: str, more: str = "setup = false", inner: str = INNER, host: str = HOST) -> str:
    addresses = f'addresses = "{inner}/24", host_addresses = "{host}/24", gateway = "{host}"'
    return f"netns.{name} = {{ {addresses}, {more} }}\n"


def inode(name: str) -> int:
    return os.stat(f"/run/netns/{name}").st_ino


def reach(port: int, address: str = INNER) -> None:
    socket.create_connection((address, port), 10).close()


def state(daemon: Daemon, name: str) -> dict[str, Any]:
    return ask(daemon, name, "GetState")


def ask(daemon: Daemon, name: str, method: str) -> dict[str, Any]:
    """Return the reply of a worker, as `spawnctl call` prints it."""
    result = call(daemon.socket, "Call", name=f"netns@{name}", method=method, parameters={})
    assert "parameters" in result, result
    found: dict[str, Any] = result["parameters"]["reply"]
    return found
