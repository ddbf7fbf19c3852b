"""The installed spawnd under the systemd of a machine, for checks that may do with it what they like."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from supervisor.ctl.client import Client
from tests.daemon import wait_until
from tests.vm.guest import bus

UNIT = "spawnd.service"
SCOPE = "spawnd-services.scope"
CONTROL = "/run/spawnd/control"
DEFINITIONS = Path("/etc/spawnd/services.d/checks.lua")
SET_ASIDE = ".shipped"
DOCUMENTATION = Path(sys.prefix).parents[1] / "share/doc/spawn-supervisor"
EXAMPLES = Path(sys.prefix).parents[1] / "share/spawn-supervisor/examples"
UNITS = Path("/etc/systemd/system")
SLICE = Path("/sys/fs/cgroup/system.slice")
SCOPE_FOLDER = SLICE / SCOPE
INFINITY = (1 << 64) - 1  # of systemd's limits
PATIENCE = 120.0  # seconds: the processor is emulated, and shared
PAUSE = 0.2  # seconds between two questions that cost a process, or time of the only processor
SLEEP = 'exec = "/bin/sleep", arg = { "100000" }'

# Writes to the file in its argument who sent it TERM and when, SECONDS later.
WITNESS = """
import os, signal, socket, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as spawnd:
    spawnd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
info = signal.sigwaitinfo([signal.SIGTERM])
received = time.monotonic()
time.sleep(float(sys.argv[2]))
with open(sys.argv[1], "w") as file:
    print(info.si_pid, received, time.monotonic(), file=file)
    file.flush()
    os.fsync(file.fileno())
"""


def run(*command: str, check: bool = True) -> str:
    """Return both outputs of a command. Raises if it fails, unless that may be."""
    bus.BUS.close()  # the command may reload systemd
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if check and result.returncode:
        raise AssertionError(f"{' '.join(command)}: status {result.returncode}\n{result.stdout}")
    return result.stdout


# systemd's side


def show(what: str, unit: str = UNIT) -> str:
    """A property of a unit, as `systemctl show` has it."""
    value = bus.get(unit, what)
    return "infinity" if value == INFINITY else str(value).strip()


def state(unit: str = UNIT) -> str:
    return show("ActiveState", unit)


def main_pid() -> int:
    """Of spawnd, 0 where it does not run."""
    return int(show("MainPID"))


def wait_show(what: str, value: str) -> None:
    wait_until(lambda: show(what) == value, f"{what}={value}", PATIENCE, PAUSE)


def wait_other_spawnd(before: int) -> int:
    """The pid of the spawnd that systemd has started in the place of another, and that is ready."""

    def found() -> int:
        pid = main_pid()
        return pid if pid not in (0, before) and state() == "active" else 0

    return wait_until(found, "another spawnd", PATIENCE, PAUSE)


def signal_main(name: str) -> None:
    run("systemctl", "kill", "--kill-whom=main", f"--signal={name}", UNIT)


def journal(*match: str) -> list[dict[str, Any]]:
    """The entries of this boot, all of them written that have been sent."""
    run("journalctl", "--sync")
    lines = run("journalctl", "--boot", "--output=json", *match).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def messages(pid: int) -> list[tuple[str, str]]:
    """Return the log of a process as messages and priorities."""
    return [(entry["MESSAGE"], entry["PRIORITY"]) for entry in journal(f"_PID={pid}")]


# spawnd's side


def define(definitions: str) -> None:
    """Make these the definitions, which spawnd does not know yet; those that were installed are set aside."""
    DEFINITIONS.parent.mkdir(parents=True, exist_ok=True)
    for path in DEFINITIONS.parent.glob("*.lua"):
        path.rename(path.with_suffix(SET_ASIDE))
    DEFINITIONS.write_text(definitions)


def shipped(name: str) -> str:
    """A definition file that was installed."""
    path = DEFINITIONS.with_name(f"{name}.lua")
    return (path if path.exists() else path.with_suffix(SET_ASIDE)).read_text()


def witness(path: Path, seconds: float) -> str:
    """A program that writes to `path` who stopped it; takes so many seconds to stop."""
    command = f'exec = "/usr/bin/python3", arg = {{ "-c", [==[{WITNESS}]==], "{path}", "{seconds}" }}'
    return f'{command}, user = "root", group = "root", ready = "notify", stop_timeout = "60s"'


def call(method: str, /, **parameters: object) -> dict[str, Any]:
    """As `spawnctl` does it, which takes seconds to start here."""
    client = Client(CONTROL)
    try:
        return client.call(method, **parameters)
    finally:
        client.close()


def services() -> dict[str, dict[str, Any]]:
    """The services by name, as `spawnctl list --json` has them."""
    return {row["name"]: row for row in call("List")["services"]}


def wait_running(name: str, other_than: int | None = None) -> int:
    """The pid of a service that runs."""

    def found() -> int | None:
        row = services()[name]
        return row["pid"] if row["state"] == "running" and row["pid"] != other_than else None

    pid = wait_until(found, f"{name} running", PATIENCE, PAUSE)
    assert pid is not None
    return pid


# the kernel's side


def cgroup(pid: int) -> str:
    """The cgroup that a process is in, from the root."""
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


def pids_in(folder: Path) -> list[int]:
    """The processes in a cgroup itself, none where it is gone."""
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """With a process that does nothing: stopped again and again, as systemd sends CONT after TERM."""
    ended = threading.Event()

    def stop() -> None:
        with suppress(ProcessLookupError):
            while not ended.wait(0.001):
                os.kill(pid, signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# both


@contextmanager
def unit_file(name: str, text: str) -> Iterator[None]:
    """With a unit, or with a drop-in of one (`UNIT.d/NAME.conf`), of the check's own."""
    path = UNITS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        path.unlink()
        run("systemctl", "daemon-reload")


@contextmanager
def changed(section: str, *lines: str) -> Iterator[None]:
    """With these lines in a section of spawnd's unit."""
    with unit_file(f"{UNIT}.d/check.conf", "\n".join([f"[{section}]", *lines, ""])):
        yield


@contextmanager
def started(definitions: str) -> Iterator[None]:
    """With spawnd running these definitions; in the end nothing of it is left."""
    define(definitions)
    try:
        assert bus.do("StartUnit", UNIT) == "done"
        yield
    finally:
        clean_up()


def clean_up() -> None:
    """End whatever a check has left, also one that failed."""
    with suppress(ProcessLookupError):
        if pid := main_pid():
            os.kill(pid, signal.SIGCONT)
    for unit in (UNIT, SCOPE):
        if state(unit) not in ("inactive", "failed"):
            bus.do("StopUnit", unit)
    if state() == "failed":
        run("systemctl", "reset-failed", UNIT)
    DEFINITIONS.unlink(missing_ok=True)
    shutil.rmtree("/run/spawnd", ignore_errors=True)
    wait_until(lambda: not SCOPE_FOLDER.exists(), "the end of the scope", PATIENCE)
