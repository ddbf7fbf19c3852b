from __future__ import annotations

import subprocess
from pathlib import Path

import prctl

from supervisor.linux.capabilities import limit_effective
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root

CAP_KILL = 5
CAP_SYSLOG = 34


def sets(status: str) -> dict[str, int]:
    """The sets in the text of `/proc/PID/status`, as masks."""
    lines = (line.split() for line in status.splitlines() if line.startswith("Cap"))
    return {name.removeprefix("Cap").rstrip(":"): int(value, 16) for name, value in lines}


@needs_root
def test_what_is_in_force_is_less_until_root_executes_something() -> None:
    def limit() -> tuple[dict[str, int], dict[str, int]]:
        limit_effective((CAP_KILL, CAP_SYSLOG))
        own = sets(Path("/proc/self/status").read_text())
        command = ("/bin/cat", "/proc/self/status")
        return own, sets(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    before = sets(Path("/proc/self/status").read_text())
    own, executed = in_child(limit)
    assert own["Eff"] == 1 << CAP_KILL | 1 << CAP_SYSLOG
    assert {key: own[key] for key in ("Prm", "Inh", "Bnd")} == {key: before[key] for key in ("Prm", "Inh", "Bnd")}
    assert executed["Eff"] == own["Bnd"]


@needs_root
def test_what_is_not_there_does_not_come() -> None:
    def limit() -> int:
        prctl.set_caps(([CAP_KILL], [prctl.CAP_EFFECTIVE, prctl.CAP_PERMITTED], False))
        limit_effective((CAP_KILL,))
        return sets(Path("/proc/self/status").read_text())["Eff"]

    assert in_child(limit) == 0
