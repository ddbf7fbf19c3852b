from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.places import cgroup2_mounts
from supervisor.process import cgroup
from supervisor.process.cgroup import OWN_LEAF, Subtree, find_delegated, own_cgroup
from tests.unit.process import cgroups
from tests.unit.process.forked import in_child, step_error
from tests.unit.process.requirements import needs_root

pytestmark = needs_root


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "SYSTEMD_RUNS", "/nowhere")


@pytest.fixture
def subtree() -> Iterator[Subtree]:
    with cgroups.subtree() as made:
        yield made


def enter(folder: str) -> None:
    Path(folder, "cgroup.procs").write_text("0")


def path_of(found: Subtree | None) -> str | None:
    return None if found is None else found.path


def test_where_cgroup2_is() -> None:
    for point in cgroup2_mounts():
        assert os.path.exists(f"{point}/cgroup.controllers")


def test_own_cgroup(subtree: Subtree) -> None:
    def inside() -> str | None:
        enter(subtree.path)
        return own_cgroup()

    assert in_child(inside) == subtree.path


def test_an_explicit_one(subtree: Subtree) -> None:
    assert path_of(find_delegated(subtree.path)) == subtree.path
    assert path_of(find_delegated(f"{subtree.path}/")) == subtree.path


def test_an_explicit_one_is_made(subtree: Subtree) -> None:
    path = f"{subtree.path}/deep/down"
    assert path_of(find_delegated(path)) == path
    assert os.path.isdir(path)


@pytest.mark.parametrize("path", ["/tmp", "/sys/fs/cgroup-nowhere", "relative", "/"])
def test_an_explicit_one_elsewhere(path: str) -> None:
    assert step_error(lambda: find_delegated(path)) == ("use cgroup", path, errno.EINVAL)


def test_an_explicit_one_cannot_climb_out(subtree: Subtree) -> None:
    path = f"{subtree.path}/../../../../tmp"
    assert step_error(lambda: find_delegated(path))[0] == "use cgroup"


def test_an_explicit_one_that_we_are_in(subtree: Subtree) -> None:
    def inside() -> tuple[str | None, str | None]:
        enter(subtree.path)
        return path_of(find_delegated(subtree.path)), own_cgroup()

    assert in_child(inside) == (subtree.path, f"{subtree.path}/{OWN_LEAF}")


def test_one_that_cannot_be_made(subtree: Subtree) -> None:
    Path(subtree.path, "cgroup.max.descendants").write_text("0")
    path = f"{subtree.path}/x"
    assert step_error(lambda: find_delegated(path)) == ("make cgroup", path, errno.EAGAIN)


@pytest.mark.parametrize("attribute", ["user.delegate", "trusted.delegate"])
def test_the_one_that_we_were_started_in_and_after_reexec(subtree: Subtree, attribute: str) -> None:
    os.setxattr(subtree.path, attribute, b"1")

    def inside() -> list[str | None]:
        enter(subtree.path)
        found = [path_of(find_delegated("")), own_cgroup()]
        return [*found, path_of(find_delegated("")), own_cgroup()]

    own = f"{subtree.path}/{OWN_LEAF}"
    assert in_child(inside) == [subtree.path, own, subtree.path, own]


@pytest.mark.parametrize("value", [None, b"0"])
def test_one_that_was_not_delegated(subtree: Subtree, value: bytes | None) -> None:
    if value is not None:
        os.setxattr(subtree.path, "user.delegate", value)

    def inside() -> tuple[str | None, str | None]:
        enter(subtree.path)
        return path_of(find_delegated("")), own_cgroup()

    assert in_child(inside) == (None, subtree.path)


def test_under_systemd_only_an_explicit_one_counts(subtree: Subtree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "SYSTEMD_RUNS", "/")
    os.setxattr(subtree.path, "user.delegate", b"1")

    def inside() -> tuple[str | None, str | None]:
        enter(subtree.path)
        return path_of(find_delegated("")), path_of(find_delegated(subtree.path))

    assert in_child(inside) == (None, subtree.path)


def test_no_cgroup2_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "cgroup2_mounts", dict)
    assert own_cgroup() is None
    assert find_delegated("") is None


def test_a_mount_of_a_part(monkeypatch: pytest.MonkeyPatch, subtree: Subtree) -> None:
    point = cgroups.mount_point()
    root = subtree.path.removeprefix(point)
    os.mkdir(f"{subtree.path}/in")

    def inside() -> list[str | None]:
        enter(f"{subtree.path}/in")
        monkeypatch.setattr(cgroup, "cgroup2_mounts", lambda: {"/mnt": root})
        found = [own_cgroup()]
        monkeypatch.setattr(cgroup, "cgroup2_mounts", lambda: {"/mnt": "/elsewhere"})
        return [*found, own_cgroup()]

    assert in_child(inside) == ["/mnt/in", None]
