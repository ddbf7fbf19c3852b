"""Stand-ins for the packages of the C++ daemons and for a spawner's unit, and the steps of docs/migration.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vm.guest.installed import DEFINITIONS, DOCUMENTATION, UNIT, UNITS, clean_up, run

PACKAGED = Path("/usr/lib/systemd/system")
ACCESSORY = "cm4all-spawn-accessory.service"
SOCKET = "cm4all-spawn-accessory.socket"
REAPER = "cm4all-spawn-reaper.service"
NETNS = "cm4all-spawn-netns@.service"
SPAWNER = "checks-spawner.service"
SCRIPTS = Path("/var/lib/checks-old-daemons")
DEFINITION = DEFINITIONS.with_name("accessory.lua")
ANSWER = SCRIPTS / "answer"  # what the spawner was told when it started

# Answers on the socket that systemd hands over, and has a child that outlives it, as inits of PID namespaces do.
OLD_DAEMON = """
import socket, subprocess
subprocess.Popen(["/bin/sleep", "100001"])
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    if connection.recv(65536):
        connection.send(b"old daemon")
"""
# Asks for an IPC namespace and prints who has answered.
ASK = """
import socket, struct, zlib
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.settimeout(60)
try:
    client.connect("\\0cm4all-spawn")
    payload = struct.pack("=HH4sHH", 4, 1, b"name", 0, 2)
    client.send(struct.pack("=II", 0x63046173, zlib.crc32(payload)) + payload)
    reply = client.recv(65536)
except OSError as error:
    print(type(error).__name__)
else:
    named = {b"old daemon": "old"}.get(reply)
    print(named or ("spawnd" if reply[10:12] == b"\\1\\0" else reply))
"""
FILES = {
    SOCKET: """
        [Socket]
        ListenSequentialPacket=@cm4all-spawn
        [Install]
        WantedBy=sockets.target
        """,
    ACCESSORY: f"""
        [Unit]
        Requires={SOCKET}
        After={SOCKET}
        [Service]
        ExecStart=/usr/bin/python3 {SCRIPTS}/old.py
        [Install]
        WantedBy=multi-user.target
        Also={SOCKET}
        """,
    REAPER: """
        [Service]
        ExecStart=/bin/sleep 100000
        [Install]
        WantedBy=multi-user.target
        """,
    NETNS: """
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/bin/ip netns add %i
        ExecStop=/bin/ip netns del %i
        [Install]
        WantedBy=multi-user.target
        """,
    SPAWNER: f"""
        [Unit]
        Wants={SOCKET}
        After={SOCKET}
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/bin/sh -c '/usr/bin/python3 {SCRIPTS}/ask.py > {ANSWER}'
        [Install]
        WantedBy=multi-user.target
        """,
}


def install() -> None:
    SCRIPTS.mkdir(exist_ok=True)
    (SCRIPTS / "old.py").write_text(OLD_DAEMON)
    (SCRIPTS / "ask.py").write_text(ASK)
    for name, text in FILES.items():
        (PACKAGED / name).write_text("\n".join(line.strip() for line in text.splitlines()))
    run("systemctl", "daemon-reload")


@contextmanager
def old_daemons() -> Iterator[None]:
    """With these packages; in the end nothing of them or of a migration is left."""
    install()
    try:
        yield
    finally:
        remove()


def stop() -> None:
    """End all that runs of them, of spawners and of spawnd."""
    clean_up()
    run("systemctl", "stop", SPAWNER, SOCKET, ACCESSORY, REAPER, "cm4all-spawn-netns@*.service",
        "cm4all-spawn-inits.scope", check=False)  # fmt: skip
    run("systemctl", "reset-failed", check=False)
    run("pkill", "-f", "sleep 100001", check=False)
    run("ip", "netns", "del", "customer1", check=False)


def remove() -> None:
    """Whatever steps have been taken: systemd reads all units anew once, in the end."""
    stop()
    for verb, *units in (("unmask", SOCKET), ("disable", UNIT, SPAWNER, SOCKET, ACCESSORY, REAPER, NETNS)):
        run("systemctl", "--no-reload", verb, *units, check=False)
    for name in FILES:
        (PACKAGED / name).unlink(missing_ok=True)
    (UNITS / NETNS).unlink(missing_ok=True)
    for name in ("cm4all-*", SPAWNER, UNIT):
        for path in UNITS.glob(f"{name}.d/*.conf"):
            path.unlink()
    run("systemctl", "--no-reload", "enable", UNIT)
    run("systemctl", "daemon-reload")


def steps(document: str = "migration.md") -> dict[str, str]:
    """The blocks of commands in a document, by the heading or the number that they are below; as scripts of sh."""
    found: dict[str, str] = {}
    key, indentation = "", ""
    for line in (DOCUMENTATION / document).read_text().splitlines():
        if match := re.match(r"## (.*)|(\d+)\. \*\*", line):
            key, indentation = match[1] or match[2], " " * 4 if match[1] else " " * 7
        elif indentation and line.startswith(indentation):
            found[key] = found.get(key, "set -e\n") + line.removeprefix(indentation) + "\n"
    return found


def ask() -> str:
    """Return the name of the program that answers on the accessory's address."""
    return run("/usr/bin/python3", str(SCRIPTS / "ask.py")).strip()
