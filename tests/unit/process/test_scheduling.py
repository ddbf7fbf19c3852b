from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import prctl
import pytest

from supervisor.linux.libc import check, function, syscall_number
from supervisor.process.launch_plan import IOPRIO_CLASS_SHIFT, OOM_SCORE_ADJ, is_spared
from tests.unit.process.forked import in_child
from tests.unit.process.launched import service, start, told

IOPRIO_WHO_PROCESS = 1
PR_GET_TIMERSLACK = 30
_NR_IOPRIO_GET = syscall_number({"x86_64": 252, "ppc64le": 274, "s390x": 283}, 31, {"i686": 290, "x86_64": 290}, 315)
_ioprio_get = function("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_int)
_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def look() -> tuple[int, list[int], int]:
    score = int(Path(OOM_SCORE_ADJ).read_text())
    return os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0)), score


def test_nothing_said_nothing_changed() -> None:
    assert told(service(), look) == list(look())


def test_all_three() -> None:
    processor = max(os.sched_getaffinity(0))
    keys = {"nice": 7, "cpu_affinity": (processor,), "oom_score_adj": 300}
    assert told(service(**keys), look) == [7, [processor], 300]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"io_class": "idle"}, [3, 0]),
        ({"io_class": "best-effort"}, [2, 4]),
        ({"io_priority": 7}, [2, 7]),
        ({"io_class": "realtime", "io_priority": 0}, [1, 0]),
    ],
)
def test_disks(keys: dict[str, Any], expected: list[int]) -> None:
    if keys.get("io_class") == "realtime" and not prctl.cap_effective.sys_admin:
        pytest.skip("needs CAP_SYS_ADMIN")

    def look() -> tuple[int, int]:
        value = check(_ioprio_get(_NR_IOPRIO_GET, IOPRIO_WHO_PROCESS, 0))
        return value >> IOPRIO_CLASS_SHIFT, value & 7

    assert told(service(**keys), look) == expected


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

    def look() -> tuple[int, int]:
        return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority

    assert told(service(scheduling=scheduling), look) == [policy, priority]


def test_timers() -> None:
    assert told(service(timer_slack=0.05), lambda: check(_prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0))) == 50_000_000


@pytest.mark.parametrize(("keys", "expected"), [({}, 0), ({"oom_score_adj": 300}, 300)])
def test_what_spares_spawnd_is_not_inherited(keys: dict[str, Any], expected: int) -> None:
    """Anybody may raise the score, so one above 0 stands in for one below."""

    def spare() -> None:
        Path(OOM_SCORE_ADJ).write_text("200")

    assert told(service(**keys), look, spared=True, before=spare)[2] == expected


def test_who_is_spared() -> None:
    def run() -> bool:
        Path(OOM_SCORE_ADJ).write_text("100")
        return is_spared()

    assert in_child(run) is False
    assert is_spared() == (int(Path(OOM_SCORE_ADJ).read_text()) < 0)


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"nice": -20}, ("set nice", "", errno.EACCES)),
        ({"cpu_affinity": (1000,)}, ("set cpu_affinity", "", errno.EINVAL)),
        ({"oom_score_adj": -900}, ("write", OOM_SCORE_ADJ, errno.EACCES)),
        ({"oom_score_adj": 5000}, ("write", OOM_SCORE_ADJ, errno.EINVAL)),
    ],
)
def test_failures(keys: dict[str, Any], error: tuple[str, str, int]) -> None:
    outcome = start(service(**keys), (), load=lambda: lambda: 0, before=prctl.cap_effective.limit)
    assert outcome.failed_step == error
