from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import prctl
import pytest

from supervisor.definitions.service import UNLIMITED
from supervisor.process.attributes import BIND_US, RESOURCES, set_binding_limits, set_limits, with_descriptors
from tests.unit.process.forked import in_child, step_error

Pair = tuple[int, int]


def without_privilege() -> None:
    prctl.cap_effective.sys_resource = False


def after(*calls: Callable[[], object], name: str) -> Pair:
    def run() -> Pair:
        for call in calls:
            call()
        return resource.getrlimit(RESOURCES[name])

    return in_child(run)


def test_every_limit_of_the_kernel_has_its_name() -> None:
    assert sorted(RESOURCES.values()) == list(range(16))
    shown = Path("/proc/self/limits").read_text()
    assert len(shown.splitlines()) == 1 + len(RESOURCES)


@pytest.mark.parametrize("name", sorted(RESOURCES))
def test_lowered_in_two_phases(name: str) -> None:
    hard = resource.getrlimit(RESOURCES[name])[1]
    # enough for this process to go on with, which no CPU time is not
    small = (3600, 3600) if name == "cpu" else (0, 0)
    wanted = small if name not in BIND_US else (1 << 13, 1 << 14) if name == "nofile" else (1 << 32, 1 << 33)
    if hard not in (UNLIMITED, 0) and name in BIND_US:
        wanted = (min(wanted[0], hard), min(wanted[1], hard))
    limits = {name: wanted}
    first = after(lambda: set_limits(limits), name=name)
    assert (first == wanted) == (name not in BIND_US) or first == wanted
    if name in BIND_US:
        assert first == resource.getrlimit(RESOURCES[name])
    assert after(lambda: set_limits(limits), lambda: set_binding_limits(limits), name=name) == wanted


@pytest.mark.parametrize("name", ["nofile", "memlock"])
def test_raising_the_hard_limit_takes_a_privilege(name: str) -> None:
    def raise_it() -> tuple[str, str, int]:
        without_privilege()
        resource.setrlimit(RESOURCES[name], (500, 1000))
        return step_error(lambda: set_limits({name: (600, 2000)}))

    assert in_child(raise_it) == (f"set limit {name}", "", errno.EPERM)


@pytest.mark.parametrize("name", ["nofile", "core"])
def test_soft_above_hard(name: str) -> None:
    def confuse() -> tuple[str, str, int]:
        def set_both() -> None:
            set_limits({name: (100, 50)})
            set_binding_limits({name: (100, 50)})

        return step_error(set_both)

    assert in_child(confuse) == (f"set limit {name}", "", errno.EINVAL)


def test_memory_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []
    monkeypatch.setattr(resource, "setrlimit", lambda number, _: order.append(number))
    set_binding_limits({name: (1, 1) for name in sorted(RESOURCES)})
    assert order == [RESOURCES[name] for name in ("nofile", "stack", "data", "as")]


def test_the_soft_limit_of_descriptors_is_the_one_before_spawnd_raised_its_own() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert with_descriptors({}, 1024) == {"nofile": (1024, hard)}
    assert with_descriptors({"core": (0, 0)}, hard + 1) == {"core": (0, 0), "nofile": (hard, hard)}
    assert with_descriptors({"nofile": (4, 4)}, 1024) == {"nofile": (4, 4)}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_privileged_rise_comes_before_the_user() -> None:
    if not prctl.cap_permitted.sys_resource:
        pytest.skip("needs CAP_SYS_RESOURCE, which this root does not have")

    def rise() -> list[Pair]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, 1000))
        limits = {"nofile": (2000, 3000)}
        set_limits(limits)
        seen = [resource.getrlimit(resource.RLIMIT_NOFILE)]
        os.setresuid(65534, 65534, 65534)
        set_binding_limits(limits)
        return [*seen, resource.getrlimit(resource.RLIMIT_NOFILE)]

    assert in_child(rise) == [(500, 3000), (2000, 3000)]
