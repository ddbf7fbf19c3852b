from __future__ import annotations

import os

import pytest

from supervisor.linux.cgroup2 import mount_points


def test_where_cgroup2_is_mounted() -> None:
    found = mount_points()
    if not found:
        pytest.skip("needs cgroup2")
    for point, root in found.items():
        assert os.path.exists(f"{point}/cgroup.controllers")
        assert root.startswith("/")
