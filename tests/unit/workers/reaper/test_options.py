from __future__ import annotations

import socket
from typing import Any

import pytest

from workers.reaper import options
from workers.reaper.options import SCOPES, HostError, OptionsError, find_root, read


def given(**raw: Any) -> options.Options:
    return read({"cgroup_root": "/cg", **raw})


def test_the_defaults() -> None:
    found = given()
    assert found.scopes == tuple(
        f"/system.slice/system-cm4all.slice/{name}-spawn.scope" for name in ("bp", "lukko", "workshop")
    )
    assert found.delete_delay == 0.05
    assert found.database == ""
    assert found.xattrs == ()
    assert found.host == socket.gethostname()
    assert SCOPES == found.scopes


def test_scopes_with_or_without_a_slash_at_the_end() -> None:
    assert given(scopes=["/a/b.scope/", "/c.scope"]).scopes == ("/a/b.scope", "/c.scope")


@pytest.mark.parametrize(
    ("value", "seconds"), [("50ms", 0.05), ("2s", 2.0), (0.25, 0.25), (1, 1.0), ("0.5 s", 0.5), ("3", 3.0), (0, 0.0)]
)
def test_durations(value: object, seconds: float) -> None:
    assert given(delete_delay=value).delete_delay == seconds


def test_how_long_rows_are_kept() -> None:
    assert given().keep is None
    assert given(keep="400d").keep == 400 * 86400


def test_a_password_is_not_told() -> None:
    with pytest.raises(OptionsError) as caught:
        given(database="postgres://reaper:secret@db.example/accounting")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("value", "size"), [("1g", 1 << 30), ("64M", 64 << 20), (5, 5), ("12", 12)])
def test_sizes(value: object, size: int) -> None:
    assert given(spool_max=value).spool_max == size


@pytest.mark.parametrize(
    "value", ["sqlite:/var/lib/x.db", "postgresql:dbname=x host=/tmp", "postgresql://user@host:1/x", "postgresql:"]
)
def test_databases(value: str) -> None:
    assert given(database=value).database == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scopes", []),
        ("scopes", {}),
        ("scopes", "/a"),
        ("scopes", ["a"]),
        ("scopes", ["/"]),
        ("scopes", ["/a/../b"]),
        ("scopes", ["/a//b"]),
        ("script", "reaper.lua"),
        ("script", False),
        ("delete_delay", "soon"),
        ("delete_delay", -1),
        ("delete_delay", True),
        ("delete_delay", "2h"),
        ("database", "mysql:x"),
        ("database", "sqlite:relative.db"),
        ("xattrs", "account"),
        ("xattrs", [1]),
        ("xattrs", ["a\0b"]),
        ("scopes", ["/a\0b"]),
        ("keep", "long"),
        ("keep", "5m"),
        ("spool_max", "much"),
        ("spool_max", -1),
        ("host", ""),
        ("what", 1),
    ],
)
def test_what_is_wrong_is_named(name: str, value: object) -> None:
    with pytest.raises(OptionsError, match=name):
        given(**{name: value})


def test_all_that_is_wrong_at_once() -> None:
    with pytest.raises(OptionsError) as caught:
        given(scopes=["a"], host=1, unknown=2)
    assert [name in str(caught.value) for name in ("scopes", "host", "unknown")] == [True] * 3


def test_the_script_is_optional_where_nobody_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "SCRIPT", "/nonexistent/reaper.lua")
    assert given().script is None
    assert given(script="/nonexistent/other.lua").script == "/nonexistent/other.lua"


def test_the_root_is_where_all_is_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "cgroup2_mounts", lambda: {"/part": "/a/b", "/unified": "/"})
    assert find_root() == "/unified"
    monkeypatch.setattr(options, "cgroup2_mounts", lambda: {"/part": "/a/b"})
    with pytest.raises(HostError, match="cgroup_root"):
        find_root()
