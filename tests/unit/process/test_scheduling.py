from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import prctl
import pytest

from supervisor.definitions.service import Service
from supervisor.linux.scheduling import ioprio_get, timer_slack
from supervisor.process.attributes import OOM_SCORE_ADJ, is_spared, set_scheduling
from tests.unit.process.forked import in_child, step_error


def after(spared: bool = False, **keys: Any) -> tuple[int, set[int], int]:
    def run() -> tuple[int, set[int], int]:
        set_scheduling(Service("test", **keys), spared)
        return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), int(Path(OOM_SCORE_ADJ).read_text())

    return in_child(run)


def test_nothing_said_nothing_changed() -> None:
    nice, processors, score = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), Path(OOM_SCORE_ADJ)
    assert after() == (nice, processors, int(score.read_text()))


def test_all_three() -> None:
    processor = max(os.sched_getaffinity(0))
    assert after(nice=7, cpu_affinity=(processor,), oom_score_adj=300) == (7, {processor}, 300)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"io_class": "idle"}, (3, 0)),
        ({"io_class": "best-effort"}, (2, 4)),
        ({"io_priority": 7}, (2, 7)),
        ({"io_class": "realtime", "io_priority": 0}, (1, 0)),
    ],
)
def test_disks(keys: dict[str, Any], expected: tuple[int, int]) -> None:
    if keys.get("io_class") == "realtime" and not prctl.cap_effective.sys_admin:
        pytest.skip("needs CAP_SYS_ADMIN")

    def run() -> tuple[int, int]:
        set_scheduling(Service("test", **keys), False)
        return ioprio_get()

    assert in_child(run) == expected


@pytest.mark.parametrize(
    ("scheduling", "policy", "priority"),
    [
        ("batch", os.SCHED_BATCH, 0),
        ("idle", os.SCHED_IDLE, 0),
        ("fifo:10", os.SCHED_FIFO, 10),
        ("rr:99", os.SCHED_RR, 99),
    ],
)
def test_policies(scheduling: str, policy: int, priority: int) -> None:
    if priority and not prctl.cap_effective.sys_nice:
        pytest.skip("needs CAP_SYS_NICE")

    def run() -> tuple[int, int]:
        set_scheduling(Service("test", scheduling=scheduling), False)
        return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority

    assert in_child(run) == (policy, priority)


def test_timers() -> None:
    def run() -> int:
        set_scheduling(Service("test", timer_slack=0.05), False)
        return timer_slack()

    assert in_child(run) == 50_000_000


@pytest.mark.parametrize(("keys", "expected"), [({}, 0), ({"oom_score_adj": 300}, 300)])
def test_what_spares_spawnd_is_not_inherited(keys: dict[str, Any], expected: int) -> None:
    """Anybody may raise the score, so one above 0 stands in for one below."""

    def run() -> int:
        Path(OOM_SCORE_ADJ).write_text("200")
        return after(spared=True, **keys)[2]

    assert in_child(run) == expected


def test_who_is_spared() -> None:
    def run() -> bool:
        Path(OOM_SCORE_ADJ).write_text("100")
        return is_spared()

    assert in_child(run) is False
    assert is_spared() == (int(Path(OOM_SCORE_ADJ).read_text()) < 0)


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"nice": -5}, ("set nice", "", errno.EACCES)),
        ({"cpu_affinity": (1000,)}, ("set cpu_affinity", "", errno.EINVAL)),
        ({"oom_score_adj": -900}, ("write", OOM_SCORE_ADJ, errno.EACCES)),
        ({"oom_score_adj": 5000}, ("write", OOM_SCORE_ADJ, errno.EINVAL)),
    ],
)
def test_failures(keys: dict[str, Any], error: tuple[str, str, int]) -> None:
    def fail() -> tuple[str, str, int]:
        prctl.cap_effective.limit()
        return step_error(lambda: set_scheduling(Service("test", **keys), spared=False))

    assert in_child(fail) == error
