"""The kernel's view of a process."""

from __future__ import annotations

from pathlib import Path

KILL = 1 << 5  # CAP_KILL


def status(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def capabilities(pid: int) -> dict[str, int]:
    facts = status(pid)
    return {key: int(facts[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")}


def pss(pid: int) -> int:
    """Proportional set size in kB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(f"no Pss of {pid}")
