"""Mounting, in a mount namespace of a child's own."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisor.linux.namespaces import CLONE_NEWNS, MNT_DETACH, MS_BIND, MS_REC, MS_SLAVE, mount, umount2, unshare
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root

pytestmark = needs_root


def test_a_file_is_bound_over_another_and_taken_away(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("one")
    other.write_text("other")

    def run() -> list[str]:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_SLAVE | MS_REC)
        mount(str(one), str(other), flags=MS_BIND)
        seen = [other.read_text()]
        umount2(str(other), MNT_DETACH)
        return [*seen, other.read_text()]

    assert in_child(run) == ["one", "other"]
    assert other.read_text() == "other"


def test_errors_name_the_target(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(FileNotFoundError) as caught:
        mount("none", missing, "tmpfs")
    assert caught.value.filename == missing
    with pytest.raises(OSError, match="Invalid argument") as refused:
        umount2(os.fspath(tmp_path))
    assert refused.value.errno == errno.EINVAL
