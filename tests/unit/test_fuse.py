"""The FUSE file system of the tests is taken away again, or the test fails."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests import fuse

pytestmark = pytest.mark.skipif(not fuse.is_possible(), reason="needs root and /dev/fuse")


def test_it_is_taken_away() -> None:
    with fuse.unanswering() as path:
        folder = os.path.dirname(path)
        assert os.path.ismount(folder)
    assert not os.path.exists(folder)


def test_a_failure_to_take_it_away_is_told() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="umount"), fuse.unanswering() as path:
        subprocess.run(["umount", "-l", os.path.dirname(path)], check=True)
