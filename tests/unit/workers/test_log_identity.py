"""The identity of the log worker."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisor.linux.capabilities import capget, has_effective, limit_effective
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root
from workers.log.main import CAP_SYS_PTRACE, ID, USER, find_ids, leave_root


def status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {key: value.strip() for key, _colon, value in (line.partition(":") for line in lines)}


def after_leaving() -> tuple[tuple[int, ...], list[int], bytes, str]:
    leave_root()
    return (*os.getresuid(), *os.getresgid()), os.getgroups(), capget(), status()["NoNewPrivs"]


may_look = pytest.mark.skipif(not has_effective(CAP_SYS_PTRACE), reason="needs CAP_SYS_PTRACE, which this root lacks")


@needs_root
@may_look
def test_root_becomes_a_user_of_its_own_without_capabilities() -> None:
    ids, groups, capabilities, no_new_privs = in_child(after_leaving)
    uid, gid = find_ids()
    assert ids == (uid, uid, uid, gid, gid, gid)
    assert (groups, no_new_privs) == ([], "1")
    assert capabilities == bytes(len(capabilities))


@needs_root
def test_without_the_right_to_look_into_others_it_stays_root_without_capabilities() -> None:
    def leave() -> tuple[tuple[int, ...], list[int], bytes, str]:
        limit_effective(set(range(41)) - {CAP_SYS_PTRACE})
        return after_leaving()

    ids, _, capabilities, no_new_privs = in_child(leave)
    assert ids == (0,) * 6
    assert no_new_privs == "1"
    assert capabilities == bytes(len(capabilities))


@needs_root
def test_where_ids_cannot_be_changed_it_stays_root_without_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a user namespace with few ids."""

    def refuse(*_ids: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "setresuid", refuse)
    ids, _, capabilities, _ = in_child(after_leaving)
    assert ids[0] == 0
    assert capabilities == bytes(len(capabilities))


def test_an_ordinary_user_stays_who_they_are() -> None:
    def leave() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        if os.geteuid() == 0:
            os.setresuid(4242, 4242, 4242)
        before = os.getresuid()
        leave_root()
        return before, os.getresuid()

    before, after = in_child(leave)
    assert before == after


def test_a_user_for_it_is_found_in_the_file(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text(f"root:x:0:0::/root:/bin/sh\n{USER}:x:987:986::/:/usr/sbin/nologin\n")
    assert find_ids(str(passwd)) == (987, 986)
    passwd.write_text("root:x:0:0::/root:/bin/sh\n")
    assert find_ids(str(passwd)) == (ID, ID)
    assert find_ids(str(tmp_path / "none")) == (ID, ID)
    passwd.write_text(f"{USER}:x\n")
    assert find_ids(str(passwd)) == (ID, ID)
