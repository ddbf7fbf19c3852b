"""A real xinetd, as far as Debian's package is installed: what has the same name here is to have its effect."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from tests.ports import free_port
from tests.unit.launch.accepting import wait_until

PROGRAM = shutil.which("xinetd", path="/usr/sbin:/usr/bin")
DEFAULTS = {
    "type": "UNLISTED",
    "socket_type": "stream",
    "protocol": "tcp",
    "wait": "no",
    "user": "root",
    "bind": "127.0.0.1",
    "server": "/bin/cat",
}
TRIES = 20
ANEW = 3.0  # seconds after which xinetd has forgotten its clients, and has opened the service again
T = TypeVar("T")
has_xinetd = pytest.mark.skipif(PROGRAM is None or os.geteuid() != 0, reason="needs xinetd, and root")


class Xinetd:
    """An xinetd with a service for each set of attributes, by name; `cat` by default."""

    def __init__(self, services: Mapping[str, str], folder: Path) -> None:
        self.ports = {name: free_port() for name in services}
        entries = [_entry(number, services[name], self.ports[name]) for number, name in enumerate(services)]
        (folder / "conf").write_text("".join(entries))
        files = ["-f", str(folder / "conf"), "-filelog", str(folder / "log"), "-pidfile", str(folder / "pid")]
        assert PROGRAM is not None
        self.process = subprocess.Popen([PROGRAM, "-dontfork", *files], stdin=-3, stdout=-3, stderr=-3)
        listening = {self.ports[name] for name in services if "disable" not in services[name]}
        try:
            wait_until(lambda: _listening() >= listening)
        except BaseException:
            self.close()
            raise

    def within_a_second(self, name: str, act: Callable[[int], T]) -> T:
        """Return what `act` finds at the port of a service with `cps = N 1`.

        xinetd begins to count anew with a client that comes more than a second after the first one, by a clock of whole
        seconds. So `act` counts only if it has taken less time. Otherwise the service opens again, and counts anew.
        """
        for _ in range(TRIES):
            wait_until(lambda: self.ports[name] in _listening())
            begun = time.monotonic()
            found = act(self.ports[name])
            if time.monotonic() < begun + 1:
                return found
            wait_until(lambda begun=begun: time.monotonic() > begun + ANEW)  # type: ignore[misc]
        raise AssertionError(f"this host is too busy: it took more than a second {TRIES} times")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def _entry(number: int, attributes: str, port: int) -> str:
    """Return a service entry with these attributes, in lines, and the defaults for others."""
    given = [line.strip() for line in attributes.splitlines() if line.strip()]
    names = {line.split()[0] for line in given}
    lines = [*given, f"port = {port}", *(f"{name} = {text}" for name, text in DEFAULTS.items() if name not in names)]
    return "\n".join([f"service s{number}", "{", *(f" {line}" for line in lines), "}", ""])


def _listening() -> set[int]:
    """Return the ports of listening and bound sockets, found without a connection, which would count."""
    found = set()
    for protocol, state in (("tcp", "0A"), ("udp", "07")):
        lines = Path(f"/proc/net/{protocol}").read_text()
        ports = re.findall(rf"^ *\d+: 0100007F:(\w+) \w+:\w+ {state} ", lines, re.MULTILINE)
        found |= {int(port, 16) for port in ports}
    return found
