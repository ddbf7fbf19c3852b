from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor import places
from supervisor.ctl.errors import NoSupervisor
from supervisor.places import cgroup2_mounts, default_folder, default_socket


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    assert default_folder() == "/run/spawnd"
    assert default_socket() == "/run/spawnd/control"
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/a:/run/b")
    assert default_folder() == "/run/a"
    assert default_socket() == "/run/spawnd/control"


def test_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    assert default_folder() == "/tmp/spawnd-77"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/77")
    assert default_folder() == "/run/user/77/spawnd"
    assert default_socket() == "/run/spawnd/control"


def test_the_socket_of_a_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.stat(tmp_path).st_uid or 77
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    monkeypatch.setattr(places, "_temporary_folder", lambda: str(tmp_path / "temporary"))
    for name in ("session/spawnd", "temporary"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "control").touch()
        if os.getuid() == 0:
            os.chown(tmp_path / name, owner, owner)
    assert default_socket() == str(tmp_path / "temporary/control")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    assert default_socket() == str(tmp_path / "session/spawnd/control")
    (tmp_path / "session/spawnd/control").unlink()
    assert default_socket() == str(tmp_path / "temporary/control")
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)  # somebody else's folder is not trusted
    assert default_socket() == "/run/spawnd/control"


def test_no_supervisor_names_the_other_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/77")
    assert str(NoSupervisor("/run/spawnd/control", "gone")) == (
        "no supervisor at '/run/spawnd/control': gone; "
        "others may be at '/run/user/77/spawnd/control' or '/tmp/spawnd-77/control', or where --socket says"
    )
    assert str(NoSupervisor("/x", "gone")) == "no supervisor at '/x': gone"


def test_where_cgroup2_is_mounted() -> None:
    found = cgroup2_mounts()
    if not found:
        pytest.skip("needs cgroup2")
    for point, root in found.items():
        assert os.path.exists(f"{point}/cgroup.controllers")
        assert root.startswith("/")
