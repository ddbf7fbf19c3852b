"""A real xinetd, as far as Debian's package is installed: what has the same name here is to have its effect."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

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
