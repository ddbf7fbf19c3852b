"""Processes that setup scripts of network namespaces leave behind: they end with the namespace or with a failed run."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import process_state, wait_until
from tests.integration.conftest import Start
from tests.namespaces import swept
from tests.unit.process.requirements import needs_ip, needs_root

pytestmark = [needs_root, needs_ip]

PREFIXES = [
    "",
    "env -i /usr/bin/env",
    "setpriv --reuid=65534 --clear-groups",
    "setpriv --reuid=65534 --clear-groups env -i /usr/bin/env",
]
DETACHED = """#!/bin/sh
before=$(wc -l < {left})
(setsid {prefix} sh -c 'trap "" TERM; echo $$ >> {left}; exec sleep 1000' < /dev/null > /dev/null 2>&1 &)
until [ "$(wc -l < {left})" -gt $before ]; do sleep 0.01; done
exit {status}
"""


class Leaving:
    """A namespace whose script leaves a process that ignores TERM, started by a command with this prefix."""

    def __init__(self, name: str, folder: Path, prefix: str) -> None:
        self.name = name
        self.service = f"netns@{name}"
        self.prefix = prefix
        self._script = folder / name
        self._left = folder / f"{name}.left"
        self._left.touch()
        self._left.chmod(0o666)

    def write(self, prefix: str, status: int) -> None:
        self._script.write_text(DETACHED.format(left=self._left, prefix=prefix, status=status))
        self._script.chmod(0o755)

    def definition(self, more: str = "") -> str:
        return f'netns["{self.name}"] = {{ setup = "{self._script}"{more} }}\n'

    def left(self) -> list[int]:
        return [int(line) for line in self._left.read_text().split()]

    def left_alive(self) -> list[int]:
        return [pid for pid in self.left() if process_state(pid) not in ("", "Z")]


@pytest.fixture
def name() -> Iterator[str]:
    found = f"nl{os.getpid() % 100000}{uuid.uuid4().hex[:5]}"
    with swept(found):
        yield found


@pytest.fixture
def all_leaving(name: str, folder: Path) -> Iterator[list[Leaving]]:
    """A namespace for each prefix: they are side by side, as each takes seconds to end what ignores TERM."""
    found = [Leaving(f"{name}-{number}", folder, prefix) for number, prefix in enumerate(PREFIXES)]
    yield found
    for pid in (pid for leaving in found for pid in leaving.left_alive()):
        if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def shell() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts a process in a namespace, as an operator would; it is ended in the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["ip", "netns", "exec", name, "sleep", "1000"]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_what_a_script_has_left_goes_with_the_namespace(
    spawnd: Start, all_leaving: list[Leaving], shell: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    for leaving in all_leaving:
        leaving.write(leaving.prefix, status=0)
    daemon = spawnd("".join(leaving.definition() for leaving in all_leaving))
    for leaving in all_leaving:
        daemon.wait_running(leaving.service)
    operators = {leaving.prefix: shell(leaving.name) for leaving in all_leaving}
    assert {leaving.prefix: len(leaving.left_alive()) for leaving in all_leaving} == dict.fromkeys(PREFIXES, 1)
    assert daemon.ctl("stop", *(leaving.service for leaving in all_leaving)).returncode == 0
    for leaving in all_leaving:
        wait_until(lambda: not leaving.left_alive(), f"the end of what {leaving.prefix!r} has left")  # noqa: B023
    ended = [prefix for prefix, operator in operators.items() if operator.poll() is not None]
    assert ended == [], "a shell of the operator is nobody's leftover"


def test_a_script_that_fails_leaves_no_process_at_any_try(spawnd: Start, all_leaving: list[Leaving]) -> None:
    for leaving in all_leaving:
        leaving.write(leaving.prefix, status=7)
    backoff = ', backoff = { first = "10ms", max = "10ms" }, start_limit = 3'
    daemon = spawnd("".join(leaving.definition(backoff) for leaving in all_leaving))
    for leaving in all_leaving:
        daemon.wait_state(leaving.service, "failed")
    assert {leaving.prefix: len(leaving.left()) >= 3 for leaving in all_leaving} == dict.fromkeys(PREFIXES, True)
    assert {leaving.prefix: leaving.left_alive() for leaving in all_leaving} == {prefix: [] for prefix in PREFIXES}


def test_a_reload_that_fails_ends_what_that_run_has_left(
    spawnd: Start, all_leaving: list[Leaving], shell: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    """The namespace was there before, and others may be in it: they are the script's as they are below it."""
    for leaving in all_leaving:
        leaving.write("", status=0)
    daemon = spawnd("".join(leaving.definition() for leaving in all_leaving))
    for leaving in all_leaving:
        daemon.wait_running(leaving.service)
        leaving.write(leaving.prefix, status=7)
    operators = {leaving.prefix: shell(leaving.name) for leaving in all_leaving}
    assert daemon.ctl("reload", *(leaving.service for leaving in all_leaving)).returncode == 0
    for leaving in all_leaving:
        wait_until(lambda: f"{leaving.name} exited with status 7" in daemon.log(), leaving.prefix)  # noqa: B023
        first, second = leaving.left()
        wait_until(lambda: second not in leaving.left_alive(), f"the end of what {leaving.prefix!r} has left")  # noqa: B023
        assert first in leaving.left_alive(), f"{leaving.prefix!r}: what the run before has started goes on"
    ended = [prefix for prefix, operator in operators.items() if operator.poll() is not None]
    assert ended == []
