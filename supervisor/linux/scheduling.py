"""I/O priority, ioprio_set(2), and the score for the end of memory, proc_pid_oom_score_adj(5)."""

from __future__ import annotations

# <linux/ioprio.h>
IOPRIO_CLASS_SHIFT = 13
CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}
NORMAL = 4  # the priority of a class without an explicit one

OOM_SCORE_ADJ = "/proc/self/oom_score_adj"


def is_spared() -> bool:
    """Whether the kernel spares this process when memory is short, as systemd may have set it up."""
    with open(OOM_SCORE_ADJ, encoding="ascii") as file:
        return int(file.read()) < 0
