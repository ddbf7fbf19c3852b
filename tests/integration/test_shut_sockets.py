"""A service may shut down the socket that spawnd keeps for it: clients are served all the same, and nothing spins."""

from __future__ import annotations

import os
import socket
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.daemon import Daemon, wait_until
from tests.integration.conftest import Start
from tests.ports import free_port

PATIENCE = 60.0
SPENT = 1.0  # seconds of processor time at most, for a few starts

# Serves one client with its pid, notes that in a file, and shuts its socket down: at once, or from a child once a file
# is there, which outlives it.
SHUTTING = f"""#!{sys.executable} -IS
import os, socket, sys, time
shared = socket.socket(fileno=3)
with open(sys.argv[1], "a") as starts:
    starts.write("x")
if shared.type == socket.SOCK_DGRAM:
    _, sender = shared.recvfrom(100)
    shared.sendto(b"%d" % os.getpid(), sender)
else:
    with shared.accept()[0] as client:
        client.sendall(b"%d" % os.getpid())
if sys.argv[2:]:
    if os.fork():
        sys.exit()
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
try:
    shared.shutdown(socket.SHUT_RDWR)
except OSError:
    pass  # a socket without a peer says ENOTCONN, and is shut down
"""
# Serves clients, and shuts its socket down when it is told to end.
POLITE = f"""#!{sys.executable} -IS
import os, signal, socket
shared = socket.socket(fileno=3)
signal.signal(signal.SIGTERM, lambda *_: (shared.shutdown(socket.SHUT_RDWR), os._exit(0)))
while True:
    with shared.accept()[0] as client:
        client.sendall(b"%d" % os.getpid())
"""
# Sends to a port where nobody is, and asks for errors about that, which it leaves in its socket.
BLIND = f"""#!{sys.executable} -IS
import socket, sys
shared = socket.socket(fileno=3)
shared.setblocking(False)
shared.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
try:
    shared.sendto(b"", shared.recvfrom(100)[1])
except OSError:
    pass
"""


def program(folder: Path, text: str) -> str:
    (folder / "program").write_text(text)
    (folder / "program").chmod(0o755)
    return str(folder / "program")


def ask(daemon: Daemon, place: str, port: int) -> int:
    family = socket.AF_INET if "127" in place else socket.AF_UNIX
    kinds = {"udp": socket.SOCK_DGRAM, "dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}
    kind = kinds.get(place.partition("(")[0], socket.SOCK_STREAM)
    with socket.socket(family, kind) as client:
        client.settimeout(PATIENCE)
        if family == socket.AF_UNIX and kind == socket.SOCK_DGRAM:
            client.bind("")
        client.connect(("127.0.0.1", port) if family == socket.AF_INET else f"{daemon.folder}/socket")
        if kind == socket.SOCK_DGRAM:
            client.send(b"?")
        return int(client.recv(100))


def has_shut_down(daemon: Daemon, times: int) -> bool:
    return daemon.log().count("has shut down its socket") == times


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


PLACES = ['tcp("127.0.0.1", PORT)', 'udp("127.0.0.1", PORT)', 'stream("@/socket")', 'seqpacket("@/socket")']
PLACES.append('dgram("@/socket")')


@pytest.mark.parametrize("place", PLACES)
def test_a_service_on_demand_gets_another_socket(spawnd: Start, folder: Path, place: str) -> None:
    port = free_port()
    daemon = spawnd(f"""x = {{ status = "demand", exec = "{program(folder, SHUTTING)}", arg = {{ "@/out/starts" }},
      fd = {{ {place.replace("PORT", str(port))} }} }}""")
    for number in range(1, 4):
        wait_until(lambda: daemon.state("x") == "asleep", "the service to be asleep")
        ask(daemon, place, port)
        wait_until(partial(has_shut_down, daemon, number), "another socket")
    wait_until(lambda: daemon.state("x") == "asleep", "the service to be asleep")
    before = processor_time(daemon.pid)
    assert [daemon.state("x") for _ in range(5)] == ["asleep"] * 5
    assert processor_time(daemon.pid) - before < SPENT
    assert (folder / "out" / "starts").read_text() == "xxx"


@pytest.mark.parametrize("place", PLACES)
def test_a_sleeping_service_gets_another_socket(spawnd: Start, folder: Path, place: str) -> None:
    port = free_port()
    daemon = spawnd(f"""x = {{ status = "demand", exec = "{program(folder, SHUTTING)}", kill_mode = "process",
      arg = {{ "@/out/starts", "@/out/go" }}, fd = {{ {place.replace("PORT", str(port))} }} }}""")
    wait_until(lambda: daemon.state("x") == "asleep", "the service to be asleep")
    ask(daemon, place, port)
    wait_until(lambda: daemon.state("x") == "asleep", "the service to be asleep again")
    (folder / "out" / "go").touch()
    daemon.wait_log("has shut down its socket")  # where the other process has the place, it is taken until that ends
    wait_until(lambda: daemon.state("x") == "asleep", "another socket")
    ask(daemon, place, port)
    assert (folder / "out" / "starts").read_text() == "xx"


def test_a_restart_gets_another_socket(spawnd: Start, folder: Path) -> None:
    daemon = spawnd(f'x = {{ exec = "{program(folder, POLITE)}", fd = {{ stream("@/socket") }} }}')
    daemon.wait_running("x")
    before = ask(daemon, PLACES[2], 0)
    assert daemon.ctl("restart", "x").returncode == 0
    assert ask(daemon, PLACES[2], 0) != before


def test_an_error_that_a_service_leaves_in_its_socket_is_a_failure(spawnd: Start, folder: Path) -> None:
    """It wakes the service, which would start again and again otherwise."""
    port = free_port()
    daemon = spawnd(f"""x = {{ status = "demand", exec = "{program(folder, BLIND)}",
      fd = {{ udp("127.0.0.1", {port}) }} }}""")
    wait_until(lambda: daemon.state("x") == "asleep", "the service to be asleep")
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"?", ("127.0.0.1", port))  # and is gone when the answer comes
    daemon.wait_log("has not served the client")
