#!/usr/bin/env python3
"""Attackers at nice 19 keep all cores busy with descriptors that are slow to close or look at, and with STATUS.

Prints one line of JSON: latencies in milliseconds of a call over an open control connection, of a request to the
accessory, and of the start of a killed service; and spawnd's threads, descriptors and memory before and after.
`shell_ms` is that of a program which a loop of the shell starts again: what wake-up, fork and exec take by themselves.

Two kinds of attackers: services, which attack over their notification sockets, and strangers, who attack the control
socket, the accessory and the socket of a service that is stopped and started all the time.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from supervisor.linux.inotify import IN_CLOEXEC, inotify_init1
from tests.accessory import AccessoryDaemon, accessory_daemon
from tests.bench.measure import descriptors, median, rss_kb
from tests.daemon import encode_call, receive, wait_until
from tests.unit.varlink.lingering import lingering

NICE = 19
PAUSE = 0.02  # seconds between two measurements of a kind
KILL_PAUSE = 0.5
VICTIM = "echo $$ > {path}; exec sleep 100000"
INOTIFY = 120  # descriptors in a message: what the default limit of a user allows
EPOLL = 20_000  # entries
SETTLED = 20.0  # seconds for all to be closed after the last attack


# by service: a user of its own, as limits are those of users, and how many descriptors it may store
USERS = {
    "status": ("daemon", 1),
    "linger": ("bin", 1),
    "inotify": ("games", 1),
    "epoll": ("man", 1),
    "store": ("lp", 64),
}
STRANGERS = (65530, 65531, 65532, 65534)  # uids


def definitions(folder: Path) -> str:
    attackers = "".join(
        f"""
    attack_{name} = {{
      exec = "{sys.executable}", arg = {{ "-P", "{os.path.abspath(__file__)}", "--attack", "{name}" }},
      env = {{ PYTHONPATH = "{Path(__file__).parents[2]}" }},
      user = "{user}", fdstore_max = {store}, nice = {NICE}, status = "stop", restart = "always", stop_timeout = "1s",
    }}"""
        for name, (user, store) in USERS.items()
    )
    return f"""
    victim = {{ exec = "/bin/sh", user = "root", arg = {{ "-c", "{VICTIM.format(path=folder / 'victim')}" }},
                healthy_after = "1ms" }}
    backlog = {{ exec = "/bin/sleep", arg = {{ "100000" }}, fd = {{ stream("{folder}/backlog") }} }}
    {attackers}
    """


# the attackers


def pass_on(sock: socket.socket, text: bytes, fds: list[int]) -> None:
    sock.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def lingerers(number: int) -> list[int]:
    """Sockets whose last close waits for a minute; closed by whoever gets them last."""
    return [_lingerer() for _ in range(number)]


_kept: list[Any] = []  # servers whose clients are not to be reset


def _lingerer() -> int:
    stack = lingering()
    sock = stack.__enter__()
    _kept.append(stack)
    del _kept[:-200]
    fd = os.dup(sock.fileno())
    sock.detach()
    return fd


def inotifies() -> list[int]:
    """As many as this user may have, up to a number."""
    found: list[int] = []
    with suppress(OSError):
        while len(found) < INOTIFY:
            found.append(inotify_init1(IN_CLOEXEC))
    return found


@contextmanager
def closed(fds: list[int]) -> Iterator[list[int]]:
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def notify_socket() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.connect(os.environ["NOTIFY_SOCKET"])
    return sock


def attack_status() -> None:
    sock, number = notify_socket(), 0
    while True:
        number += 1
        sock.send(b"STATUS=%d" % number)


def attack_linger() -> None:
    sock = notify_socket()
    while True:
        with closed(lingerers(2)) as fds:
            pass_on(sock, b"WATCHDOG=1", fds)


def attack_inotify() -> None:
    sock = notify_socket()
    while True:
        with closed(inotifies()) as fds:
            pass_on(sock, b"STATUS=x", fds)


def attack_epoll() -> None:
    """Item by item the same epoll, to a store that has no room, and to one that has."""
    sock = notify_socket()
    epoll, event = select.epoll(), os.eventfd(0)
    entries = [os.dup(event) for _ in range(min(EPOLL, os.sysconf("SC_OPEN_MAX") - 100))]
    for fd in entries:
        epoll.register(fd, 0)
    pass_on(sock, b"FDSTORE=1", [os.eventfd(0)])
    while True:
        pass_on(sock, b"FDSTORE=1", [epoll.fileno()] * 253)


def attack_store() -> None:
    """Store descriptors and give them up again."""
    sock = notify_socket()
    while True:
        ours, theirs = socket.socketpair()
        with ours, theirs, closed(lingerers(1)) as fds:
            pass_on(ours, b"x", fds)
            pass_on(sock, b"FDSTORE=1\nFDNAME=x", [theirs.fileno(), os.memfd_create("x")])
        sock.send(b"FDSTOREREMOVE=1\nFDNAME=x")


def attack_control(path: str) -> None:
    while True:
        with socket.socket(socket.AF_UNIX) as sock, closed(lingerers(1)) as fds, suppress(OSError):
            sock.connect(path)
            pass_on(sock, b"{", fds)


def attack_control_inotify(path: str) -> None:
    while True:
        with (
            socket.socket(socket.AF_UNIX) as sock,
            closed(inotifies()) as fds,
            suppress(OSError),
        ):
            sock.connect(path)
            pass_on(sock, b"{", fds)


def attack_accessory(address: str) -> None:
    while True:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock,
            closed(inotifies()) as fds,
            suppress(OSError),
        ):
            sock.connect("\0" + address[1:])
            for _ in range(8):
                pass_on(sock, b"x", fds)


def attack_backlog(path: str) -> None:
    while True:
        with socket.socket(socket.AF_UNIX) as sock, closed(lingerers(1)) as fds:
            try:
                sock.connect(path)
                pass_on(sock, b"x", fds)
            except OSError:
                time.sleep(0.01)


SERVICES: dict[str, Callable[[], None]] = {
    "status": attack_status,
    "linger": attack_linger,
    "inotify": attack_inotify,
    "epoll": attack_epoll,
    "store": attack_store,
}


def _be_nice() -> None:
    """Give way to processes of other sessions: the kernel compares the sessions alone, see sched(7), autogroup."""
    with suppress(OSError), open("/proc/self/autogroup", "w") as group:
        group.write(str(NICE))


class Stranger:
    """An attacker in a process and a session of its own."""

    def __init__(self, attack: Callable[[str], None], target: str, uid: int) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                os.setpriority(os.PRIO_PROCESS, 0, NICE)
                _be_nice()
                os.setresuid(uid, uid, uid)
                attack(target)
            finally:
                os._exit(1)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


# what is measured


@contextmanager
def shell_loop(path: Path) -> Iterator[None]:
    """A shell, in a session of its own, that starts such a victim again and again."""
    script = f"while :; do /bin/sh -c '{VICTIM.format(path=path)}'; done"
    shell = subprocess.Popen(["/bin/sh", "-c", script], stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: path.exists() and path.read_text(), "the victim of the shell")
        yield
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


class Meter:
    """Does something again and again in a thread, and keeps how many milliseconds it took."""

    def __init__(self, act: Callable[[], None], pause: float) -> None:
        self.times: list[float] = []
        self.error: BaseException | None = None
        self._act = act
        self._pause = pause
        self._goes_on = True
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while self._goes_on:
                begun = time.perf_counter()
                self._act()
                self.times.append((time.perf_counter() - begun) * 1000)
                time.sleep(self._pause)
        except BaseException as error:
            self.error = error

    def close(self) -> None:
        self._goes_on = False
        self._thread.join()

    def result(self) -> dict[str, float]:
        if self.error is not None:
            raise self.error
        ordered = sorted(self.times)
        return {
            "number": len(ordered),
            "median": round(median(ordered), 2),
            "p99": round(ordered[len(ordered) * 99 // 100], 2),
            "max": round(ordered[-1], 2),
        }


def caller(daemon: AccessoryDaemon, stack: ExitStack) -> Callable[[], None]:
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(str(daemon.socket))
    client.settimeout(60)

    def act() -> None:
        client.sendall(encode_call("GetVersion"))
        assert "parameters" in receive(client)

    return act


def asker(daemon: AccessoryDaemon, stack: ExitStack) -> Callable[[], None]:
    client = stack.enter_context(daemon.connect())
    return lambda: client.request("bench", ipc=True).close()


def killer(path: Path) -> Callable[[], None]:
    def act() -> None:
        pid = int(path.read_text())
        os.kill(pid, signal.SIGKILL)
        while path.read_text().strip() in ("", str(pid)):
            time.sleep(0.0005)

    return act


def switcher(daemon: AccessoryDaemon, stack: ExitStack) -> Callable[[], None]:
    """Stop and start the service whose socket is attacked."""
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(str(daemon.socket))
    client.settimeout(60)

    def act() -> None:
        client.sendall(encode_call("Restart", names=["backlog"]))
        receive(client)

    return act


def state_of(pid: int) -> dict[str, int]:
    return {"threads": len(os.listdir(f"/proc/{pid}/task")), "descriptors": descriptors(pid), "rss_kb": rss_kb(pid)}


def measure(seconds: float, respawn_pause: float = KILL_PAUSE) -> dict[str, Any]:
    """All attacks for so long."""
    with tempfile.TemporaryDirectory(prefix="spawnd-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o711)
        daemon = stack.enter_context(accessory_daemon(folder, more=definitions(folder)))
        wait_until(lambda: (folder / "victim").exists() and (folder / "victim").read_text(), "the victim")
        pid = daemon.pid
        stack.enter_context(shell_loop(folder / "shell"))
        _attack(daemon, folder, min(seconds, 2.0), respawn_pause)  # what is loaded and grows once
        before = _settled(pid, None)
        result = _attack(daemon, folder, seconds, respawn_pause)
        after = _settled(pid, before)
        return {**result, "before": before, "after": after}


def _attack(daemon: AccessoryDaemon, folder: Path, seconds: float, respawn_pause: float) -> dict[str, Any]:
    services = [f"attack_{name}" for name in SERVICES]
    with ExitStack() as stack:
        assert daemon.ctl("start", *services).returncode == 0
        attacks = (
            (attack_control, str(daemon.socket)),
            (attack_control_inotify, str(daemon.socket)),
            (attack_accessory, daemon.address),
            (attack_backlog, f"{folder}/backlog"),
        )
        for (attack, target), uid in zip(attacks, STRANGERS, strict=True):
            stack.callback(Stranger(attack, target, uid).close)
        meters = {
            "call_ms": Meter(caller(daemon, stack), PAUSE),
            "accessory_ms": Meter(asker(daemon, stack), PAUSE),
            "respawn_ms": Meter(killer(folder / "victim"), respawn_pause),
            "shell_ms": Meter(killer(folder / "shell"), respawn_pause),
            "restart_ms": Meter(switcher(daemon, stack), respawn_pause),
        }
        time.sleep(seconds)
        for meter in meters.values():
            meter.close()
    assert daemon.ctl("stop", *services).returncode == 0
    return {name: meter.result() for name, meter in meters.items()}


def _settled(pid: int, wanted: dict[str, int] | None) -> dict[str, int]:
    """How spawnd is once everything is closed: as it was before, or after a while."""
    state = state_of(pid)
    deadline = time.monotonic() + SETTLED
    while time.monotonic() < deadline:
        time.sleep(0.5)
        last, state = state, state_of(pid)
        if wanted is None and last == state:
            break
        if wanted is not None and state["descriptors"] <= wanted["descriptors"]:
            break
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--attack", choices=SERVICES, help="be an attacker of this kind")
    arguments = parser.parse_args()
    if arguments.attack:
        _be_nice()
        SERVICES[arguments.attack]()
    print(json.dumps(measure(arguments.seconds)))


if __name__ == "__main__":
    main()
