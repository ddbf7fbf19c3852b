"""Network namespaces under a real spawnd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, children, process_state, wait_until
from tests.integration.conftest import Start, shared, telling
from tests.integration.netns import HOST, INNER, OWN, Make, ask, definition, inode, new_name, state
from tests.namespaces import count_links, count_mounts, names, run
from tests.unit.process.requirements import needs_ip, needs_root

pytestmark = [needs_root, needs_ip]

OWN_HOST, OWN_INNER, OWN_NETWORK = (f"10.215.{OWN}.{end}" for end in ("1", "2", "0/24"))
LONG, LONG_INNER = ".with-a-long-name", f"10.216.{OWN}.2"
SETTING = 'setup = false, sysctl = { ["net.ipv4.ip_forward"] = 1 }'


@pytest.fixture
def name() -> Iterator[str]:
    with new_name() as found:
        yield found


@pytest.fixture(scope="module")
def of_all() -> Iterator[Daemon]:
    """A daemon with one namespace, which is called `own`, and one with a long name and a setting."""
    with new_name() as own:
        long = f'netns["{own}{LONG}"] = {{ addresses = "{LONG_INNER}/24", {SETTING} }}\n'
        with shared(definition(own, inner=OWN_INNER, host=OWN_HOST) + long) as daemon:
            yield daemon


@pytest.fixture
def standing(of_all: Daemon) -> Iterator[Daemon]:
    """The daemon of all tests that leave its namespaces as they have found them."""
    for service in of_all.services():
        of_all.wait_running(service)
        assert state(of_all, service.removeprefix("netns@"))["missing"] == [], "a test before has left it so"
    with telling(of_all) as daemon:
        yield daemon


@pytest.fixture
def own(standing: Daemon) -> str:
    return min(standing.services(), key=len).removeprefix("netns@")


def says(daemon: Daemon, name: str) -> str:
    return str(daemon.ctl("status", f"netns@{name}").stdout)


def test_from_start_to_stop(spawnd: Start, name: str) -> None:
    daemon = spawnd(definition(name, f'setup = false, dns = "{HOST}"'))
    daemon.wait_running(f"netns@{name}")
    assert names(name) == [name]
    assert name in run("ip", "netns", "list")
    assert f"link {name}, net0 inside" in says(daemon, name)
    found = state(daemon, name)
    assert (found["set_up"], found["missing"], found["routes"]) == (True, [], [f"0.0.0.0/0 via {HOST}"])
    assert f"{INNER}/24" in found["inside"]["addresses"]
    assert f"{HOST}/24" in found["host"]["addresses"]
    assert daemon.ctl("stop", f"netns@{name}").returncode == 0
    assert (names(name), count_links(name), count_mounts(name)) == ([], 0, 0)
    assert not os.path.exists(f"/etc/netns/{name}")
    assert daemon.ctl("start", f"netns@{name}").returncode == 0
    assert daemon.stop() == 0
    assert (names(name), count_links(name), count_mounts(name)) == ([], 0, 0)


def test_a_long_name_has_a_derived_link(standing: Daemon, own: str) -> None:
    link = state(standing, own + LONG)["host"]["name"]
    assert link != own + LONG
    assert len(link) <= 15
    assert f"link {link}, net0 inside" in says(standing, own + LONG)


SCRIPT = """#!/bin/sh
echo "argument $1, $(ls /sys/class/net | tr '\\n' ' ')"
cat /etc/resolv.conf
echo run >> @RUNS@
exit $(cat @STATUS@)
"""


@pytest.fixture
def script(program: Make, folder: Path) -> str:
    (folder / "status").write_text("0")
    text = SCRIPT.replace("@RUNS@", str(folder / "runs")).replace("@STATUS@", str(folder / "status"))
    return program("setup", text)


def runs(folder: Path) -> int:
    path = folder / "runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_the_setup_script_runs_inside(spawnd: Start, name: str, script: str, folder: Path) -> None:
    other = Path(f"/etc/netns/{name}/{name}.conf")  # has no counterpart in /etc
    other.parent.mkdir(parents=True)
    other.touch()
    daemon = spawnd(definition(name, f'setup = "{script}", dns = "{HOST}"'))
    pid = daemon.wait_running(f"netns@{name}")
    daemon.wait_log(f"cannot bind {other} over /etc/{name}.conf: No such file or directory")
    daemon.wait_log(f"netns@{name}: argument net0, lo net0")
    daemon.wait_log(f"netns@{name}: nameserver {HOST}")
    assert count_mounts(name) == 1
    assert runs(folder) == 1
    os.kill(pid, signal.SIGKILL)
    pid = daemon.wait_running(f"netns@{name}", pid)
    assert daemon.ctl("restart", f"netns@{name}").returncode == 0
    assert runs(folder) == 1  # its work is there
    assert daemon.ctl("reload", f"netns@{name}").returncode == 0
    wait_until(lambda: runs(folder) == 2, "the script once more")
    wait_until(lambda: daemon.state(f"netns@{name}") == "running", "the end of the reload")


def test_a_setup_that_is_killed_is_run_again(spawnd: Start, name: str, program: Make, folder: Path) -> None:
    path = program("setup", f"#!/bin/sh\necho $$ >> {folder}/runs\ntest -e {folder}/go || sleep 1000\n")
    daemon = spawnd(definition(name, f'setup = "{path}", setup_timeout = "5m"'))
    wait_until(lambda: runs(folder) == 1, "the script")
    before = inode(name)
    cut_off = int((folder / "runs").read_text())
    (folder / "go").touch()
    pid = daemon.wait_pid(f"netns@{name}")
    os.kill(pid, signal.SIGKILL)
    daemon.wait_running(f"netns@{name}", pid)
    assert runs(folder) == 2
    assert process_state(cut_off) in ("", "Z"), "nobody would hear of it any more"
    assert inode(name) == before


def test_a_reload_that_fails_leaves_what_there_was(spawnd: Start, name: str, script: str, folder: Path) -> None:
    daemon = spawnd(definition(name, f'setup = "{script}"'))
    pid = daemon.wait_running(f"netns@{name}")
    (folder / "status").write_text("3")
    daemon.ctl("reload", f"netns@{name}")
    wait_until(lambda: "exited with status 3" in says(daemon, name), "the problem in the status")
    assert daemon.wait_running(f"netns@{name}") == pid
    os.kill(pid, signal.SIGKILL)
    daemon.wait_running(f"netns@{name}", pid)
    assert runs(folder) == 2


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("link del @", "link @"),
        ("link set @ down", "link @ up"),
        ("addr del HOST/24 dev @", "host address HOST/24"),
        ("-n @ link set net0 down", "net0 up"),
        ("-n @ link set lo down", "loopback up"),
        ("-n @ addr del INNER/24 dev net0", "address INNER/24"),
        ("-n @ route del default", "route 0.0.0.0/0 via HOST"),
        ("netns del @", "the name of the network namespace"),
        ("route del NETWORK dev @", "host connected route NETWORK"),
        ("route del local HOST dev @ table local", "host local route HOST/32"),
        ("-n @ route del NETWORK dev net0", "connected route NETWORK"),
        ("-n @ route del local INNER dev net0 table local", "local route INNER/32"),
        ("-n @ route flush dev net0", "connected route NETWORK"),
    ],
)
def test_what_was_taken_away_is_put_right(standing: Daemon, own: str, command: str, missing: str) -> None:
    for word, text in {"@": own, "HOST": OWN_HOST, "INNER": OWN_INNER, "NETWORK": OWN_NETWORK}.items():
        command, missing = command.replace(word, text), missing.replace(word, text)
    pid, before = standing.wait_running(f"netns@{own}"), inode(own)
    earlier = len(repairs(standing, own))
    run("ip", *command.split())
    wait_until(lambda: len(repairs(standing, own)) > earlier, "the repair")
    wait_until(lambda: state(standing, own)["missing"] == [], "all there")
    assert (inode(own), standing.pid_of(f"netns@{own}")) == (before, pid)
    found = repairs(standing, own)
    assert missing in found[earlier]["missing"], found[earlier:]
    times = ask(standing, own, "GetRepairs")["repaired"]
    wait_until(lambda: f"put right {times} times" in says(standing, own), f"{times} repairs in the status")
    assert "put right: " in standing.log()
    assert "not stored" not in standing.log()
    reach_by_ping()


def repairs(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(daemon, name, "GetRepairs")["repairs"]
    return found


def test_a_changed_setting_is_missing_and_a_restart_puts_it_right(standing: Daemon, own: str) -> None:
    pid = standing.pid_of(f"netns@{own}{LONG}")
    run("ip", "netns", "exec", own + LONG, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    assert state(standing, own + LONG)["missing"] == ["net/ipv4/ip_forward = 1"]
    assert standing.ctl("restart", f"netns@{own}{LONG}").returncode == 0
    standing.wait_running(f"netns@{own}{LONG}", pid)
    assert state(standing, own + LONG)["missing"] == []


def test_a_restart_finds_what_went_without_a_worker(standing: Daemon, own: str) -> None:
    """All routes of the link are gone, and the gateway is not reached before the first of them is back."""
    pid = standing.wait_running(f"netns@{own}")
    os.kill(pid, signal.SIGSTOP)
    run("ip", "-n", own, "route", "flush", "dev", "net0")
    run("ip", "route", "del", OWN_NETWORK, "dev", own)
    os.kill(pid, signal.SIGKILL)
    standing.wait_running(f"netns@{own}", pid)
    assert state(standing, own)["missing"] == []
    assert "cannot add route" not in standing.log()
    reach_by_ping()


def reach_by_ping() -> None:
    """A packet through the link and back: a datagram to where nobody is, and the answer that says so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((OWN_INNER, 9))
        sock.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(9)


def test_a_new_link_is_set_up_by_the_script(spawnd: Start, name: str, script: str, folder: Path) -> None:
    daemon = spawnd(definition(name, f'setup = "{script}"'))
    daemon.wait_running(f"netns@{name}")
    run("ip", "link", "del", name)
    wait_until(lambda: runs(folder) == 2, "the script on the new link")


def test_it_outlives_spawnd(spawnd: Start, name: str) -> None:
    daemon = spawnd(definition(name))
    pid = daemon.wait_running(f"netns@{name}")
    before = inode(name)
    daemon.lose()
    run("ip", "link", "del", name)  # the worker goes on without a spawnd
    wait_until(lambda: count_links(name) == 1, "the link")
    daemon.again()
    assert daemon.wait_running(f"netns@{name}") == pid
    assert daemon.ctl("reexec").returncode == 0
    wait_until(daemon.answers, "spawnd executed anew")
    assert daemon.wait_running(f"netns@{name}") == pid
    os.kill(pid, signal.SIGKILL)
    daemon.wait_running(f"netns@{name}", pid)
    assert inode(name) == before
    assert daemon.stop() == 0
    assert names(name) == []


def test_a_changed_definition_is_carried_out_in_place(spawnd: Start, name: str) -> None:
    daemon = spawnd(definition(name))
    daemon.wait_running(f"netns@{name}")
    before, other = inode(name), f"10.214.{OWN}.3"
    daemon.definitions.write_text(definition(name).replace(f'"{INNER}/24"', f'{{ "{other}/24" }}'))
    assert daemon.ctl("apply").returncode == 0
    wait_until(lambda: state(daemon, name)["inside"]["addresses"][0] == f"{other}/24", "the other address")
    assert f"{INNER}/24" not in state(daemon, name)["inside"]["addresses"]
    assert inode(name) == before


def test_starts_that_fail_leave_nothing(spawnd: Start, name: str, script: str, program: Make, folder: Path) -> None:
    fails, late, taken = f"{name}f", f"{name}l", f"{name}t"
    (folder / "status").write_text("7")
    endless = program("endless", "#!/bin/sh\nsleep 1000 &\nsleep 1000\n")
    run("ip", "link", "add", taken, "type", "veth", "peer", "name", f"{taken}x")
    keys = {
        fails: f'setup = "{script}", dns = "{HOST}"',
        late: f'setup = "{endless}", setup_timeout = "300ms"',
        taken: "setup = false",
    }
    daemon = spawnd("".join(definition(one, f"{more}, start_limit = 1") for one, more in keys.items()))
    for one in keys:
        daemon.wait_state(f"netns@{one}", "failed")
    assert f"{script} exited with status 7" in daemon.log()
    assert f"{endless} took longer than 0.3 s" in daemon.log()
    assert f"cannot make link '{taken}': there is another interface of that name" in daemon.log()
    assert (names(name), count_mounts(name)) == ([], 0)
    assert {one: count_links(one) for one in keys} == {fails: 0, late: 0, taken: 2}
    assert not os.path.exists(f"/etc/netns/{fails}")


def test_a_failed_start_takes_nothing_that_was_there_before(spawnd: Start, name: str) -> None:
    run("ip", "netns", "add", name)
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "net0", "netns", name)
    before, link = inode(name), run("ip", "-o", "link", "show", name).split(":")[0]
    daemon = spawnd(definition(name, 'setup = "/nowhere", start_limit = 1'))
    daemon.wait_state(f"netns@{name}", "failed")
    assert "cannot run /nowhere: there is no such file" in daemon.log()
    assert (inode(name), run("ip", "-o", "link", "show", name).split(":")[0]) == (before, link)
    daemon.definitions.write_text(definition(name))
    assert daemon.ctl("apply").returncode == 0
    daemon.wait_running(f"netns@{name}")
    assert (inode(name), run("ip", "-o", "link", "show", name).split(":")[0]) == (before, link)


def test_many_start_and_stop_side_by_side(spawnd: Start, name: str) -> None:
    each = "".join(f'netns["{name}-{number}"] = {{ setup = false }}\n' for number in range(8))
    daemon = spawnd(each)
    wait_until(lambda: all(row["state"] == "running" for row in daemon.services().values()), "all ready", 60)
    assert len(names(name)) == 8
    assert daemon.stop(60) == 0
    assert (names(name), count_links(name[:8])) == ([], 0)


def test_it_sleeps_when_nothing_happens(standing: Daemon, own: str) -> None:
    pid = standing.wait_running(f"netns@{own}")

    def switches() -> str:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(line for line in lines if line.startswith("voluntary"))

    def is_still() -> bool:
        before = switches()
        time.sleep(1)  # the time in which nothing is to happen
        return switches() == before

    wait_until(is_still, "it to come to rest")
    assert process_state(pid) == "S"


def test_without_root(folder: Path, name: str) -> None:
    folder.chmod(0o777)
    daemon = Daemon(folder, definition(name, "setup = false, start_limit = 1"))
    daemon.prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with daemon:
        daemon.wait_state(f"netns@{name}", "failed")
        assert "cannot set up a network namespace: that takes root" in daemon.log()
    assert subprocess.run(["ip", "link", "show", name], capture_output=True).returncode != 0


def test_it_can_do_what_it_has_to_and_its_script_what_root_can(
    spawnd: Start, name: str, program: Make, folder: Path
) -> None:
    path = program("setup", f"#!/bin/sh\ngrep CapEff /proc/self/status > {folder}/script\n")
    daemon = spawnd(definition(name, f'setup = "{path}"'))
    pid = daemon.wait_running(f"netns@{name}")
    own = capabilities(Path(f"/proc/{pid}/status"), "CapEff:")
    # override, kill, net_broadcast, net_admin, sys_admin
    assert own == sum(1 << number for number in (1, 5, 11, 12, 21))
    assert capabilities(folder / "script", "CapEff:") == capabilities(Path(f"/proc/{pid}/status"), "CapBnd:")


def capabilities(path: Path, kind: str) -> int:
    return next(int(line.split()[1], 16) for line in path.read_text().splitlines() if line.startswith(kind))


def test_all_workers_are_forked_by_one_that_does_nothing_else(standing: Daemon, own: str) -> None:
    pid = standing.wait_running(f"netns@{own}")
    assert pid in children(standing.pid)
    (fork_server,) = (child for child in children(standing.pid) if title(child) == "spawnd: fork server of netns")
    os.kill(fork_server, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    standing.wait_running(f"netns@{own}", pid)
    assert fork_server not in children(standing.pid)


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()


def test_a_stop_finds_a_worker_also_where_there_is_none(spawnd: Start, name: str) -> None:
    daemon = spawnd(definition(name))
    daemon.wait_running(f"netns@{name}")
    daemon.definitions.write_text(definition(name, 'setup = "/nowhere", backoff = { first = "1h", max = "1h" }'))
    assert daemon.ctl("apply").returncode == 1
    daemon.wait_state(f"netns@{name}", "backoff")
    assert names(name) == [name]
    assert daemon.ctl("stop", f"netns@{name}").returncode == 0
    assert (names(name), count_links(name), count_mounts(name)) == ([], 0, 0)


def test_a_start_that_is_late_takes_nothing_away(spawnd: Start, name: str, program: Make) -> None:
    daemon = spawnd(definition(name))
    daemon.wait_running(f"netns@{name}")
    before, link = inode(name), run("ip", "-o", "link", "show", name).split(":")[0]
    path = program("setup", "#!/bin/sh\nexec sleep 1000\n")
    daemon.definitions.write_text(definition(name, f'setup = "{path}", start_timeout = "1s"'))
    assert daemon.ctl("apply").returncode == 1
    daemon.wait_log("not ready after")
    daemon.wait_state(f"netns@{name}", "backoff")
    assert (inode(name), run("ip", "-o", "link", "show", name).split(":")[0]) == (before, link)


def test_what_the_script_has_started_outlives_the_worker_and_not_the_namespace(
    spawnd: Start, name: str, program: Make, folder: Path
) -> None:
    path = program("setup", f"#!/bin/sh\nsleep 1000 &\necho $! > {folder}/sleeper\n")
    daemon = spawnd(definition(name, f'setup = "{path}"'))
    pid = daemon.wait_running(f"netns@{name}")
    sleeper = int((folder / "sleeper").read_text())
    os.kill(pid, signal.SIGKILL)
    pid = daemon.wait_running(f"netns@{name}", pid)
    assert daemon.ctl("restart", f"netns@{name}").returncode == 0
    assert process_state(sleeper) == "S"
    assert daemon.ctl("stop", f"netns@{name}").returncode == 0
    wait_until(lambda: process_state(sleeper) in ("", "Z"), "the end of what the script has started")
