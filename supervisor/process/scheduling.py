"""How the kernel treats a service when it hands out processor time and when memory is short."""

from __future__ import annotations

import os

from supervisor.definitions.service import Service
from supervisor.process.step import step

OOM_SCORE_ADJ = "/proc/self/oom_score_adj"  # proc(5)


def is_spared() -> bool:
    """Whether the kernel spares this process when memory is short, as systemd may have been told to have it."""
    with open(OOM_SCORE_ADJ, encoding="ascii") as file:
        return int(file.read()) < 0


def set_scheduling(service: Service, spared: bool) -> None:
    """Set niceness, processors and oom_score_adj of this process, where `service` says them.

    What `spared` its parent is not inherited: a service has to say so itself.  Raises StepError.
    """
    if service.nice is not None:
        with step("set nice"):
            os.setpriority(os.PRIO_PROCESS, 0, service.nice)
    if service.cpu_affinity:
        with step("set cpu_affinity"):
            os.sched_setaffinity(0, service.cpu_affinity)
    score = service.oom_score_adj if service.oom_score_adj is not None else 0 if spared else None
    if score is not None:
        with step("write", OOM_SCORE_ADJ):
            write_once(OOM_SCORE_ADJ, str(score))


def write_once(path: str, text: str) -> None:
    """Write a file of the kernel's in one go.  Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
