from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import prctl
import pytest

from supervisor.definitions.service import UNLIMITED
from supervisor.process.launch_plan import BIND_US, RESOURCES, early_limit, with_descriptors
from tests.unit.process.forked import in_child
from tests.unit.process.launched import service, start, view

both = pytest.mark.parametrize("forked", [False, True])


def test_every_limit_of_the_kernel_has_its_name() -> None:
    assert sorted(RESOURCES.values()) == list(range(16))
    shown = Path("/proc/self/limits").read_text()
    assert len(shown.splitlines()) == 1 + len(RESOURCES)


@pytest.mark.parametrize("name", sorted(RESOURCES))
def test_lowered_in_two_phases(name: str) -> None:
    hard = resource.getrlimit(RESOURCES[name])[1]
    # enough for a worker to go on with, which no CPU time is not
    small = (3600, 3600) if name == "cpu" else (0, 0)
    wanted = small if name not in BIND_US else (1 << 13, 1 << 14) if name == "nofile" else (1 << 32, 1 << 33)
    if hard not in (UNLIMITED, 0) and name in BIND_US:
        wanted = (min(wanted[0], hard), min(wanted[1], hard))
    assert early_limit(name, *wanted) == (None if name in BIND_US else wanted)
    assert view(service(limits={name: wanted}), forked=True)["limits"][RESOURCES[name]] == list(wanted)


@pytest.mark.parametrize("name", ["nofile", "memlock"])
@both
def test_raising_the_hard_limit_takes_a_privilege(name: str, forked: bool) -> None:
    def without_privilege() -> None:
        prctl.cap_effective.sys_resource = False
        if os.geteuid() == 0:
            prctl.capbset_drop(prctl.CAP_SYS_RESOURCE)  # what is executed as root has what is in this set
        resource.setrlimit(RESOURCES[name], (500, 1000))

    load = (lambda: lambda: 0) if forked else None
    outcome = start(service(limits={name: (600, 2000)}), ("/bin/true",), load=load, before=without_privilege)
    assert outcome.failed_step == (f"set limit {name}", "", errno.EPERM)
    assert "raising the hard limit takes CAP_SYS_RESOURCE" in str(outcome.failure)


@pytest.mark.parametrize("name", ["nofile", "core"])
@both
def test_soft_above_hard(name: str, forked: bool) -> None:
    load = (lambda: lambda: 0) if forked else None
    outcome = start(service(limits={name: (100, 50)}), ("/bin/true",), load=load)
    assert outcome.failed_step == (f"set limit {name}", "", errno.EINVAL)
    assert "the soft limit is above the hard one" in str(outcome.failure)


def test_the_soft_limit_of_descriptors_is_the_one_before_spawnd_raised_its_own() -> None:
    assert with_descriptors({}, 1024, 4096) == {"nofile": (1024, 4096)}
    assert with_descriptors({}, 1024, UNLIMITED) == {"nofile": (1024, UNLIMITED)}
    assert with_descriptors({"core": (0, 0)}, 4097, 4096) == {"core": (0, 0), "nofile": (4096, 4096)}
    assert with_descriptors({"nofile": (4, 4)}, 1024, 4096) == {"nofile": (4, 4)}


def test_what_rises_early_keeps_its_soft_limit() -> None:
    def rise() -> object:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, 1000))
        return early_limit("nofile", 2000, 3000), early_limit("nofile", 600, 1000)

    assert in_child(rise) == ((500, 3000), None)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@both
def test_a_privileged_rise_comes_before_the_user(forked: bool) -> None:
    if not prctl.cap_permitted.sys_resource:
        pytest.skip("needs CAP_SYS_RESOURCE, which this root does not have")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, 1000))

    seen = view(service(limits={"nofile": (2000, 3000)}), forked, before=limit)
    assert (seen["uids"], seen["limits"][resource.RLIMIT_NOFILE]) == ([65534] * 3, [2000, 3000])
