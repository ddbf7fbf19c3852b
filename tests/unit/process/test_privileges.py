from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

import prctl
import pytest

from supervisor.definitions.service import Service
from supervisor.linux.capabilities import CAPABILITIES
from supervisor.linux.libc import check, function
from tests.unit.process.launched import service, start, view
from tests.unit.process.requirements import needs_root

NET_BIND_SERVICE = 1 << 10
KILL = 1 << 5
NOBODY = 65534
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def caps(status: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(status[name], 16) for name in SETS)


def own_status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def own_caps() -> tuple[int, ...]:
    return caps(own_status())


def after(service: Service, is_root: bool = True, before: Callable[[], object] = lambda: None) -> dict[str, str]:
    """Return the status of a forked worker, which goes on without an exec."""
    status = view(service, forked=True, is_root=is_root, before=before)["status"]
    assert isinstance(status, dict)
    return status


def failed_step(service: Service, is_root: bool, before: Callable[[], object] = lambda: None) -> tuple[str, str, int]:
    return start(service, (), load=lambda: lambda: 0, is_root=is_root, before=before).failed_step


@needs_root
def test_user_and_groups_of_what_is_executed() -> None:
    seen = view(service(uid=12, gid=13, gids=(14, 15)))
    assert (seen["uids"], seen["gids"], seen["groups"]) == ([12] * 3, [13] * 3, [14, 15])
    assert caps(seen["status"])[1:3] == (0, 0)


@needs_root
def test_no_groups_of_root_stay() -> None:
    def many_groups() -> None:
        os.setgroups([0, 1, 2])

    assert after(service(), before=many_groups)["Groups"].strip() == ""


@needs_root
def test_a_root_service_keeps_all_it_has() -> None:
    before = own_caps()
    assert caps(view(service(uid=0, gid=0))["status"])[1:4] == before[1:4]


@needs_root
@pytest.mark.parametrize("no_new_privs", [False, True])
def test_an_unprivileged_service_with_capabilities(no_new_privs: bool) -> None:
    wanted = service(capabilities=("net_bind_service", "kill"), no_new_privs=no_new_privs)
    both = NET_BIND_SERVICE | KILL
    seen = view(wanted)
    assert seen["uids"] == [NOBODY] * 3
    assert caps(seen["status"]) == (both,) * 5
    assert seen["status"]["NoNewPrivs"] == str(int(no_new_privs))
    forked = after(wanted)
    assert caps(forked) == (both,) * 5
    assert forked["NoNewPrivs"] == str(int(no_new_privs))


@needs_root
def test_a_root_service_with_capabilities() -> None:
    wanted = service(uid=0, gid=0, capabilities=("kill",))
    assert caps(view(wanted)["status"]) == (KILL, KILL, KILL, KILL, 0)
    assert caps(after(wanted)) == (KILL, KILL, KILL, KILL, 0)


@needs_root
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_none_at_all(uid: int) -> None:
    wanted = service(uid=uid, gid=uid, capabilities=())
    assert caps(view(wanted)["status"]) == (0,) * 5
    assert caps(after(wanted)) == (0,) * 5


@needs_root
def test_the_capability_without_a_name_in_python_prctl() -> None:
    bit = 1 << CAPABILITIES.index("checkpoint_restore")
    assert caps(view(service(capabilities=("checkpoint_restore",)))["status"]) == (bit,) * 5


@needs_root
def test_one_that_the_supervisor_lacks_is_named() -> None:
    def lose() -> None:
        prctl.set_caps((prctl.CAP_SYS_TIME, prctl.ALL_FLAGS, False))

    step = failed_step(service(capabilities=("kill", "sys_time")), True, lose)
    assert step == ("keep capability sys_time", "", errno.EPERM)


@needs_root
def test_root_without_setpcap_cannot_keep_the_promise() -> None:
    def lose() -> None:
        prctl.cap_effective.setpcap = False

    step = failed_step(service(uid=0, capabilities=("kill",)), True, lose)
    assert step == ("reduce the bounding set", "", errno.EPERM)


def inherit(*, keep_user: bool) -> None:
    """Have capabilities in every set, also those that go on over exec, as capsh --addamb starts a program."""
    flags = [prctl.CAP_EFFECTIVE, prctl.CAP_PERMITTED, prctl.CAP_INHERITABLE]
    if not keep_user:
        prctl.set_keepcaps(True)
        become_nobody()
    prctl.set_caps(([5, 10], flags, True))
    for number in (5, 10):
        check(_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0))
    assert caps(own_status())[4] == NET_BIND_SERVICE | KILL


@needs_root
@pytest.mark.parametrize("is_root", [False, True])
def test_what_the_supervisor_was_started_with_is_not_passed_on(is_root: bool) -> None:
    def before() -> None:
        inherit(keep_user=is_root)

    seen = caps(view(service(), before=before, is_root=is_root)["status"])
    assert (*seen[:3], seen[4]) == (0, 0, 0, 0)
    worker = caps(after(service(), is_root=is_root, before=before))
    assert (*worker[:3], worker[4]) == (0, 0, 0, 0)


@needs_root
def test_an_ordinary_user_can_pass_on_what_it_was_started_with() -> None:
    status = after(service(capabilities=("kill",)), is_root=False, before=lambda: inherit(keep_user=False))
    assert (*caps(status)[:3], caps(status)[4]) == (KILL,) * 4


@needs_root
def test_an_ordinary_user_passes_on_what_would_end_with_an_exec() -> None:
    """It has the capability, but not as an ambient one: `launch` is executed, and would be without it."""

    def before() -> None:
        flags = [prctl.CAP_EFFECTIVE, prctl.CAP_PERMITTED]
        prctl.set_keepcaps(True)
        become_nobody()
        prctl.set_caps(([5, 10], flags, True))
        assert caps(own_status())[4] == 0

    seen = view(service(capabilities=("kill",)), is_root=False, before=before)
    assert (*caps(seen["status"])[:3], caps(seen["status"])[4]) == (KILL,) * 4
    seen = view(service(), is_root=False, before=before)
    assert (*caps(seen["status"])[:3], caps(seen["status"])[4]) == (0,) * 4


def test_one_that_nobody_knows() -> None:
    assert failed_step(service(capabilities=("fly",)), False) == ("keep capability fly", "", errno.EINVAL)


def become_nobody() -> None:
    if os.geteuid() == 0:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def test_an_ordinary_user_leaves_user_and_groups_alone() -> None:
    uid, gid = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    status = after(service(uid=12, gid=13, gids=(14,)), is_root=False, before=become_nobody)
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(gid)] * 4


def test_an_ordinary_user_cannot_give_what_it_has_not() -> None:
    step = failed_step(service(capabilities=("kill",)), False, become_nobody)
    assert step == ("keep capability kill", "", errno.EPERM)


def test_an_ordinary_user_can_give_up_everything() -> None:
    status = after(service(capabilities=(), no_new_privs=True), is_root=False, before=become_nobody)
    assert caps(status)[:3] == (0, 0, 0)
    assert status["NoNewPrivs"] == "1"


@needs_root
@pytest.mark.parametrize(("capability", "step"), [("setgid", "set groups"), ("setuid", f"set uid {NOBODY}")])
def test_steps_of_the_user(capability: str, step: str) -> None:
    def lose() -> None:
        setattr(prctl.cap_effective, capability, False)

    assert failed_step(service(), True, lose) == (step, "", errno.EPERM)
