from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A temporary folder that every user can enter and write to; those above it are pytest's, for its user alone."""
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:
        status = folder.stat()
        if status.st_uid == os.geteuid() and not status.st_mode & 0o001:
            folder.chmod(status.st_mode | 0o011)
    return tmp_path
