"""That it is the machine that the other checks take it for."""

from __future__ import annotations

from pathlib import Path

from tests.daemon import wait_until
from tests.vm.guest.installed import PATIENCE, UNIT, run, state

SYSTEMD = {"bookworm": "252", "trixie": "257"}


def test_boots_to_multi_user_with_spawnd() -> None:
    def whole() -> str:
        return run("systemctl", "is-system-running", check=False).strip()

    wait_until(lambda: whole() not in ("initializing", "starting"), "a system that has started", PATIENCE, pause=0.2)
    assert (whole(), run("systemctl", "--failed", "--no-legend")) == ("running", "")
    assert (state("multi-user.target"), state(UNIT)) == ("active", "active")
    assert run("systemctl", "is-enabled", UNIT) == "enabled\n"
    assert "spawnd" in run("spawnctl", "version")


def test_the_release_and_its_systemd(suite: str) -> None:
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    assert release["VERSION_CODENAME"] == suite
    assert run("systemctl", "--version").split()[1] == SYSTEMD[suite]


def test_cgroup2_alone_with_its_controllers() -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    assert [(mount[1], mount[2]) for mount in mounts if mount[2].startswith("cgroup")] == [
        ("/sys/fs/cgroup", "cgroup2")
    ]
    controllers = Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(controllers)
