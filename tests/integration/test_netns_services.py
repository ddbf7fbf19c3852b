"""Services in network namespaces, and sockets of services that are opened in one."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import children, process_state, wait_until
from tests.integration.conftest import Start
from tests.integration.netns import INNER, definition, inode, new_name, reach
from tests.namespaces import names, run
from tests.unit.process.requirements import needs_ip, needs_root

pytestmark = [needs_root, needs_ip]


@pytest.fixture
def name() -> Iterator[str]:
    with new_name() as found:
        yield found


def test_a_killed_worker_disturbs_nothing(spawnd: Start, name: str) -> None:
    keys = f'exec = "/bin/sleep", arg = {{ 1000 }}, netns = "{name}", fd = {{ tcp("{INNER}", 7101) }}'
    daemon = spawnd(definition(name) + f"inside = {{ {keys} }}\n")
    service = daemon.wait_running("inside")
    pid = daemon.wait_running(f"netns@{name}")
    before, link = inode(name), run("ip", "-o", "link", "show", name).split(":")[0]
    with socket.create_connection((INNER, 7101), 10):
        for _ in range(3):
            os.kill(pid, signal.SIGKILL)
            pid = daemon.wait_running(f"netns@{name}", pid)
        assert inode(name) == before
        assert run("ip", "-o", "link", "show", name).split(":")[0] == link
    assert daemon.pid_of("inside") == service
    reach(7101)


def services(name: str) -> str:
    shell = "cat /etc/resolv.conf; exec sleep 1000"
    return f"""
inside = {{ exec = "/bin/sh", arg = {{ "-c", "{shell}" }}, netns = "{name}", stdout = log(),
  fd = {{ tcp("{INNER}", 7102), tcp("127.0.0.1", 7103, {{ netns = false }}) }} }}
outside = {{ exec = "/bin/sleep", arg = {{ 1000 }}, fd = {{ tcp("{INNER}", 7104, {{ netns = "{name}" }}) }} }}
"""


def test_services_inside_and_sockets_of_others(spawnd: Start, name: str) -> None:
    daemon = spawnd(services(name) + definition(name, 'setup = false, dns = "192.0.2.53"'))
    inside, outside = daemon.wait_running("inside"), daemon.wait_running("outside")
    reach(7102)
    reach(7104)
    reach(7103, "127.0.0.1")
    assert os.stat(f"/proc/{inside}/ns/net").st_ino == inode(name)
    assert os.stat(f"/proc/{outside}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
    daemon.wait_log("inside: nameserver 192.0.2.53")
    assert "192.0.2.53" not in Path("/etc/resolv.conf").read_text()


def freeze(worker: int) -> None:
    """Stop a worker, and wait for what it has under way: a task that looks just then goes on by itself."""
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: process_state(worker) == "T", "the worker to be stopped")
    wait_until(lambda: all(process_state(child) in ("", "Z") for child in children(worker)), "the end of its tasks")


def test_a_namespace_made_anew_has_its_sockets_opened_again(spawnd: Start, name: str) -> None:
    daemon = spawnd(services(name) + definition(name))
    inside, outside = daemon.wait_running("inside"), daemon.wait_running("outside")
    before = inode(name)
    assert daemon.ctl("restart", f"netns@{name}").returncode == 0
    assert (daemon.pid_of("inside"), daemon.pid_of("outside"), inode(name)) == (inside, outside, before)
    assert daemon.ctl("stop", f"netns@{name}").returncode == 1, "others need it"
    worker = daemon.wait_running(f"netns@{name}")
    freeze(worker)  # or it would put right what is taken away
    run("ip", "link", "del", name)
    run("ip", "netns", "del", name)
    os.kill(worker, signal.SIGKILL)
    inside, outside = daemon.wait_running("inside", inside), daemon.wait_running("outside", outside)
    assert os.stat(f"/proc/{inside}/ns/net").st_ino == inode(name)
    reach(7102)
    reach(7104)
    assert "was recreated" in daemon.ctl("why", "inside").stdout
    assert daemon.ctl("stop", "--cascade", f"netns@{name}").returncode == 0
    assert (names(name), daemon.state("inside")) == ([], "stopped")


def test_a_namespace_that_somebody_has_put_in_its_place(spawnd: Start, name: str) -> None:
    daemon = spawnd(services(name) + definition(name))
    inside, outside, pid = daemon.wait_running("inside"), daemon.wait_running("outside"), daemon.pid_of(f"netns@{name}")
    assert pid is not None
    before = inode(name)
    freeze(pid)
    run("ip", "netns", "del", name)
    run("ip", "netns", "add", name)
    os.kill(pid, signal.SIGCONT)
    inside, outside = daemon.wait_running("inside", inside), daemon.wait_running("outside", outside)
    assert inode(name) != before
    assert os.stat(f"/proc/{inside}/ns/net").st_ino == inode(name)
    assert daemon.pid_of(f"netns@{name}") == pid
    reach(7102)
    reach(7104)


def test_a_new_service_in_a_new_namespace_comes_by_apply(spawnd: Start, name: str) -> None:
    daemon = spawnd('one = { exec = "/bin/sleep", arg = { 1000 } }\n')
    daemon.definitions.write_text(services(name) + definition(name))
    result = daemon.ctl("apply")
    assert result.returncode == 0, result.stderr
    daemon.wait_running("inside")
    reach(7102)


def test_what_a_service_has_in_the_namespace_is_its_own(spawnd: Start, name: str) -> None:
    """A service that enters the namespace by itself is a child of spawnd's in there, as what a script has left is."""
    service = f'exec = "/sbin/ip", arg = {{ "netns", "exec", "{name}", "/bin/sleep", "1000" }}, user = "root"'
    one, two = (f'{key} = {{ {service}, status = "stop"' for key in ("one", "two"))
    daemon = spawnd(f'{definition(name)}{one} }}\n{two}, kill_mode = "process" }}\n')
    daemon.wait_running(f"netns@{name}")
    assert daemon.ctl("start", "one", "two").returncode == 0
    pids = [daemon.wait_running("one"), daemon.wait_running("two")]
    for pid in pids:
        wait_until(lambda: os.stat(f"/proc/{pid}/ns/net").st_ino == inode(name), "the service in the namespace")  # noqa: B023
    assert daemon.ctl("stop", f"netns@{name}").returncode == 0
    assert [daemon.pid_of("one"), daemon.pid_of("two")] == pids
