"""Attributes of xinetd.conf(5) and their equivalents: a real xinetd and a real spawnd treat the same clients alike."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Any

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import shared, tell
from tests.integration.test_accept_rules import connect, is_let_in, is_served, read
from tests.integration.test_demand import port
from tests.ports import free_port
from tests.unit.launch.xinetd import Xinetd, has_xinetd

pytestmark = has_xinetd

# Tells its client what it is.
FACTS = f"""#!{sys.executable} -IS
import json, os, resource, socket, sys
connection = socket.socket(fileno=os.dup(0))
umask = os.umask(0)
names = "AS CPU DATA NOFILE RSS STACK".split()
print(json.dumps({{
    "argv": sys.argv[1:], "umask": umask, "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "ids": [os.getuid(), os.getgid(), sorted(set(os.getgroups()))],
    "env": {{name: os.environ.get(name) for name in ("A", "B")}},
    "limits": {{name: resource.getrlimit(getattr(resource, f"RLIMIT_{{name}}"))[0] for name in names}},
    "options": [
        bool(connection.getsockopt(level, option))
        for level, option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.SOL_SOCKET, socket.SO_KEEPALIVE))
    ],
    "names": [connection.getsockname()[0], connection.getpeername()[0]],
}}), flush=True)
"""
COMMAND_LINE = "tr '\\0' ' ' < /proc/$$/cmdline\n"
ECHO = f"""#!{sys.executable} -IS
import socket
bound = socket.socket(fileno=0)
data, sender = bound.recvfrom(100)
bound.sendto(data, sender)
"""

# by the name of a fact: attributes of xinetd, keys of a definition
SETTINGS: dict[str, tuple[str, str]] = {
    "argv": ("server_args = -a b", 'arg = { "-a", "b" }'),
    "umask": ("umask = 027", 'umask = "027"'),
    "nice": ("nice = 7", "nice = 7"),
    "ids": ("user = daemon\ngroup = mail", 'user = "daemon", group = "mail"'),
    "env": ("env = A=1 B=2", 'env = { A = "1", B = "2" }'),
    "limits": (
        "rlimit_as = 2048M\nrlimit_cpu = 30\nrlimit_data = 1024M\n"
        "rlimit_files = 64\nrlimit_rss = 512M\nrlimit_stack = 4M",
        'limits = { as = "2g", cpu = 30, data = "1g", nofile = 64, rss = "512m", stack = "4m" }',
    ),
    "options": ("flags = NODELAY KEEPALIVE", "accept = { nodelay = true, keepalive = true }"),
    "names": ("bind = 127.0.0.1", ""),
}
# by name: attributes, rules, and the sources of clients, which stay connected
RULES: dict[str, tuple[str, str, Sequence[int]]] = {
    "everybody": ("", "", (1, 2, 3)),
    "only_from": ("only_from = 127.0.0.1", 'only_from = "127.0.0.1"', (1, 2)),
    "no_access": ("no_access = 127.0.0.1", 'no_access = "127.0.0.1"', (1, 2)),
    "precedence": (
        "only_from = 127.0.0.0/24\nno_access = 127.0.0.2",
        'only_from = "127.0.0.0/24", no_access = "127.0.0.2"', (1, 2, 3),
    ),
    "instances": ("instances = 2", 'max = 2, on_limit = "refuse"', (1, 2, 3, 1)),
    "per_source": ("per_source = 1", "per_source = 1", (1, 1, 2, 2, 3)),
    "cps": ("cps = 3 1", 'rate = "3/m", on_limit = "refuse"', (1, 2, 3, 1, 2)),
    "now": ("access_times = 00:00-23:59", 'hours = "00:00-23:59"', (1, 2)),
    "later": ("access_times = LATER", 'hours = "LATER"', (1, 2)),
    "max_load": ("max_load = 0.01", 'load_max = 0.01, on_limit = "refuse"', (1,)),
}  # fmt: skip
ALONE = """
banners = { exec = "/bin/cat", fd = { tcp("127.0.0.1", 0) },
            accept = { banner = "@/welcome", banner_refused = "@/sorry", no_access = "127.0.0.2" } }
named = { exec = "/bin/sh", argv0 = "in.test", arg = { "@/command_line" }, fd = { tcp("127.0.0.1", 0) }, accept = true }
off = { status = "stop", exec = "/bin/cat", fd = { tcp("127.0.0.1", OFF) }, accept = true }
waits = { status = "demand", exec = "@/echo", stdin = udp("127.0.0.1", 0), stderr = log() }
trap = { fd = { tcp("127.0.0.1", 0) }, accept = { trap = true, deny_time = "1m" } }
"""
OF_XINETD = {
    "banners": "banner_success = @/welcome\nbanner_fail = @/sorry\nno_access = 127.0.0.2",
    "named": "flags = NAMEINARGS\nserver = /bin/sh\nserver_args = in.test @/command_line",
    "off": "disable = yes",
    "waits": "socket_type = dgram\nprotocol = udp\nwait = yes\nserver = @/echo",
    "trap": "flags = SENSOR\ndeny_time = 1",
}


def later() -> str:
    hour = (datetime.now().hour + 3) % 24
    return f"{hour:02}:00-{hour:02}:30"


class Both:
    """An xinetd and a spawnd with the same services."""

    def __init__(self, xinetd: Xinetd, daemon: Daemon) -> None:
        self.daemon = daemon
        self.xinetd = xinetd

    def ports(self, name: str, fd: int = 3) -> tuple[int, int]:
        return self.xinetd.ports[name], port(self.daemon, name, fd)


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    text = ALONE.replace("OFF", str(free_port()))
    for name, (_, keys) in SETTINGS.items():
        whose = "" if "user" in keys else 'user = "root", group = "root", '
        keys = keys if "accept" in keys else f"accept = true, {keys}"
        text += f'{name} = {{ exec = "@/facts", fd = {{ tcp("127.0.0.1", 0) }}, {whose}{keys} }}\n'
    for name, (_, rules, _) in RULES.items():
        text += f'r_{name} = {{ exec = "/bin/cat", fd = {{ tcp("127.0.0.1", 0) }}, accept = {{ {rules} }} }}\n'
    with shared(text.replace("LATER", later())) as daemon:
        folder = daemon.folder
        for name, content in {
            "facts": FACTS, "echo": ECHO, "command_line": COMMAND_LINE, "welcome": "welcome\n", "sorry": "sorry\n"
        }.items():
            (folder / name).write_text(content)
            (folder / name).chmod(0o755)
        services = {name: f"server = {folder}/facts\n{lines}" for name, (lines, _) in SETTINGS.items()}
        services |= {f"r_{name}": lines.replace("LATER", later()) for name, (lines, _, _) in RULES.items()}
        services |= {name: lines.replace("@", str(folder)) for name, lines in OF_XINETD.items()}
        (folder / "xinetd").mkdir()
        xinetd = Xinetd(services, folder / "xinetd")
        try:
            wait_until(lambda: daemon.state("waits") == "asleep", "all to be asleep")
            yield Both(xinetd, daemon)
        finally:
            xinetd.close()
            tell(daemon)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_server_finds_the_same(both: Both, name: str) -> None:
    found: list[dict[str, Any]] = []
    for address in both.ports(name):
        with connect(address) as client:
            found.append(json.loads(read(client)))
    found[0]["nice"] -= os.getpriority(os.PRIO_PROCESS, 0)  # xinetd adds to what it has itself
    assert found[0][name] == found[1][name]


def stays(address: int, source: str, stack: ExitStack) -> bool:
    """Whether a client is served; it stays connected. xinetd closes its socket beyond `cps`."""
    with suppress(ConnectionRefusedError):
        return is_served(stack.enter_context(connect(address, source)))
    return False


@pytest.mark.parametrize("name", RULES)
def test_the_same_clients_are_let_in(both: Both, name: str) -> None:
    if name == "max_load" and os.getloadavg()[0] < 0.05:
        pytest.skip("needs a host with some load")

    def ask(address: int) -> list[bool]:
        with ExitStack() as stack:
            return [stays(address, f"127.0.0.{number}", stack) for number in RULES[name][2]]

    theirs, ours = both.ports(f"r_{name}")
    found = both.xinetd.within_a_second(f"r_{name}", ask) if name == "cps" else ask(theirs)
    assert found == ask(ours)


def test_banners_are_the_same(both: Both) -> None:
    for address in both.ports("banners"):
        with connect(address) as client:
            assert client.recv(100) == b"welcome\n"
        with connect(address, "127.0.0.2") as client:
            assert read(client) == "sorry\n"


def test_the_name_of_the_program_is_the_same(both: Both) -> None:
    for address in both.ports("named"):
        with connect(address) as client:
            assert read(client) == f"in.test {both.daemon.folder}/command_line "


def test_nothing_listens_for_a_disabled_service(both: Both) -> None:
    for address in (both.xinetd.ports["off"], free_port()):
        with pytest.raises(ConnectionRefusedError):
            connect(address)
    assert both.daemon.state("off") == "stopped"


def test_a_server_gets_the_socket_that_a_datagram_waits_at(both: Both) -> None:
    for address in both.ports("waits", 0):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(60)
            client.connect(("127.0.0.1", address))
            client.send(b"hello")
            assert client.recv(100) == b"hello"


def test_a_trap_denies_the_same_services(both: Both) -> None:
    for trap, address in zip(both.ports("trap"), both.ports("r_everybody"), strict=True):
        assert is_let_in(address, "127.0.0.77")
        with connect(trap, "127.0.0.77") as client:
            assert not is_served(client)
        assert not is_let_in(address, "127.0.0.77")
        assert is_let_in(address, "127.0.0.78")
