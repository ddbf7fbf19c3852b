from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from supervisor.errors import RuntimeFolderError
from supervisor.manager.runtime import RuntimeFolder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_can_be_entered_by_services_of_any_user(tmp_path: Path) -> None:
    runtime = RuntimeFolder(str(tmp_path / "a/run"))
    runtime.claim()
    assert mode(tmp_path / "a/run") == 0o755
    assert mode(tmp_path / "a/run/notify") == 0o711
    assert (tmp_path / "a/run/pid").read_text() == f"{os.getpid()}\n"
    runtime.release()
    assert os.listdir(tmp_path / "a/run") == []


def test_a_private_folder_is_opened_for_services(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    runtime = RuntimeFolder(str(folder))
    runtime.claim()
    assert mode(folder) == 0o755
    runtime.release()


def test_a_folder_that_anybody_can_write_to_is_left_as_it_is(tmp_path: Path) -> None:
    """Such as /tmp: with another mode it would be of no use to anybody else."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(RuntimeFolderError, match="anybody can write to it"):
        RuntimeFolder(str(folder)).claim()
    assert mode(folder) == 0o1777
    assert os.listdir(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    os.chown(folder, 61234, 61234)
    with pytest.raises(RuntimeFolderError, match="it belongs to uid 61234"):
        RuntimeFolder(str(folder)).claim()
